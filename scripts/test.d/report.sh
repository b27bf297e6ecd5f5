# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs the steps of scripts/test, counts their tests and prints the table. Sourced by scripts/test.

LOGS_DIR=$ROOT_DIR/build/test-logs
REPORT=()
PASSED_TOTAL=0
FAILED_TOTAL=0

# Counts in a log of ctest. Prints: passed failed skipped.
count_ctest() {
  awk '
    /tests passed, [0-9]+ tests? failed out of [0-9]+/ {
      for (i = 1; i < NF; i++) {
        if ($i == "passed,") failed += $(i + 1)
        if ($i == "of") total += $(i + 1)
      }
    }
    /^[ \t]+[0-9]+ - .*\(Skipped\)/ { skipped++ }
    END { print total - failed - skipped + 0, failed + 0, skipped + 0 }' "$1"
}

# Counts in a log of GoogleTest programs as run_programs and in_lab leave it. What a test did last in a run of its
# program counts. Prints: passed failed skipped, and how many passed at a further try only.
count_gtest() {
  awk '
    function test_name() { sub(/^\[[^]]*\] /, ""); sub(/,? .*/, ""); return run SUBSEP $0 }
    /^## run / { ++run; again[run] = 0 }
    /^## again / { again[run] = 1 }
    /^## status / { status[run] = $3 }
    /^\[ RUN      \]/ { test = test_name(); if (test in state) tries[test] = 2; state[test] = "failed" }
    /^\[       OK \]/ { state[test_name()] = "passed" }
    /^\[  SKIPPED \] .* ms\)/ { state[test_name()] = "skipped" }
    END {
      for (test in state) {
        ++count[state[test]]
        split(test, part, SUBSEP)
        if (state[test] == "failed") named[part[1]] = 1
        if (state[test] == "passed" && test in tries) ++second
      }
      # A program that failed without a test of its own that did: it never began, or died at its end.
      for (i = 1; i <= run; ++i) if (status[i] != 0 && !(i in named)) ++count["failed"]
      print count["passed"] + 0, count["failed"] + 0, count["skipped"] + 0, second + 0
    }' "$1"
}

# Runs the step NAME with its output on the terminal and in a log, and notes its result.
run_step() {
  local name=$1 log=$LOGS_DIR/$1.log started=$SECONDS status=0 counts result=ok
  local passed=0 failed=0 skipped=0 second=0
  printf '\n=== %s: %s\n' "$name" "$(purpose_of "$name")"
  { "step_${name//-/_}" 2>&1 || echo "$?" >"$log.status"; } | tee "$log"
  if [[ -e $log.status ]]; then
    status=$(cat "$log.status")
    rm -f "$log.status"
  fi
  case $(counter_of "$name") in
    ctest) counts=$(count_ctest "$log") ;;
    gtest) counts=$(count_gtest "$log") ;;
    none) counts="0 0 0" ;;
  esac
  read -r passed failed skipped second <<<"$counts"
  # Something else than a test went wrong: a build, a tool, the lab.
  [[ $status == 0 || $failed != 0 ]] || failed=1
  [[ ${second:-0} == 0 ]] || result="ok, $second at a further try (log: ${log#"$ROOT_DIR"/})"
  [[ $failed == 0 ]] || result="FAILED (log: ${log#"$ROOT_DIR"/})"
  PASSED_TOTAL=$((PASSED_TOTAL + passed))
  FAILED_TOTAL=$((FAILED_TOTAL + failed))
  REPORT+=("$(printf '%-13s %7d %7d %7d %7d  %s' "$name" $((SECONDS - started)) "$passed" "$failed" "$skipped" "$result")")
}

# Prints the table and the totals; status 1 when something failed.
print_report() {
  printf '\n%-13s %7s %7s %7s %7s\n' step seconds passed failed skipped
  printf '%s\n' "${REPORT[@]}"
  printf 'total: %d s\n\n' "$SECONDS"
  printf '%d passed, %d failed\n' "$PASSED_TOTAL" "$FAILED_TOTAL"
  [[ $FAILED_TOTAL == 0 ]]
}
