# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(vhost_user_tests
  SOURCES
    vhost_user/backend_test.cc
    vhost_user/bad_frontend_test.cc
    vhost_user/frontend_test.cc
    vhost_user/memory_table_test.cc
    vhost_user/message_test.cc
    vhost_user/vhost_user_blk_test.cc
  LINK skiff_vhost_user skiff_virtio_testing)
