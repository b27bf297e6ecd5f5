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

# Counts in a log of GoogleTest programs as run_programs leaves it. One that died without a closing line of failures
# counts as one failure.
count_gtest() {
  awk '
    /^## run / { named = 0 }
    /^\[  PASSED  \] [0-9]+ tests?\./ { passed += $4 }
    /^\[  SKIPPED \] [0-9]+ tests?, listed below/ { skipped += $4 }
    /^\[  FAILED  \] [0-9]+ tests?, listed below/ { failed += $4; named = 1 }
    /^## status [1-9]/ { if (!named) failed++ }
    END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

# Runs the step NAME with its output on the terminal and in a log, and notes its result.
run_step() {
  local name=$1 log=$LOGS_DIR/$1.log started=$SECONDS status=0 counts result=ok
  local passed=0 failed=0 skipped=0
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
  read -r passed failed skipped <<<"$counts"
  # Something else than a test went wrong: a build, a tool, the lab.
  [[ $status == 0 || $failed != 0 ]] || failed=1
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
