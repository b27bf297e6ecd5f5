# SPDX-License-Identifier: GPL-2.0-or-later
# Against nbdkit, qemu-nbd and a server that lies; scripts/setup installs them.
skiff_test(nbd_tests
  SOURCES
    nbd/nbd_bad_server_test.cc
    nbd/nbd_image_test.cc
    nbd/nbd_load.cc
    nbd/nbd_reconnect_test.cc
    nbd/nbd_url_test.cc
    nbd/scripted_server.cc
    nbd/server_process.cc
    nbd/unflushed_writes_test.cc
  LINK skiff_block)
