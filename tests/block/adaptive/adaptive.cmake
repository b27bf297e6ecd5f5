# SPDX-License-Identifier: GPL-2.0-or-later
skiff_test(adaptive_tests
  SOURCES
    adaptive/auto_engine_test.cc
    adaptive/cost_model_test.cc
    probe_test.cc
  LINK skiff_block)
