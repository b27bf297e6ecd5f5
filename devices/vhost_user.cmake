# SPDX-License-Identifier: GPL-2.0-or-later
# Virtio devices served to, or by, another process.
skiff_library(skiff_vhost_user
  SOURCES
    vhost_user/backend.cc
    vhost_user/call_line.cc
    vhost_user/connection.cc
    vhost_user/fault_guard.cc
    vhost_user/frontend.cc
    vhost_user/memory_table.cc
    vhost_user/message.cc
    vhost_user/session.cc
    vhost_user/shared_mapping.cc
    vhost_user/vhost_rings.cc
    vhost_user/vhost_user_blk.cc
  LINK skiff_virtio)
