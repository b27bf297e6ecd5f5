# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The steps of scripts/test: for each a purpose, how its tests are counted, and a function. A function may run where
# `set -e` does not work, so each of its commands is chained. Sourced by scripts/test.

JOBS=$(nproc)
FUZZ_SECONDS=${SKIFF_FUZZ_SECONDS:-60}
GUEST_REPEAT=${SKIFF_GUEST_REPEAT:-3}
SIM_SEEDS=${SKIFF_SIM_SEEDS:-3000}
QUEUE_SCHEDULES=${SKIFF_QUEUE_SCHEDULES:-100000}

purpose_of() {
  case $1 in
    setup) echo "the packages that are needed" ;;
    format) echo "clang-format" ;;
    build) echo "build with g++ (preset dev)" ;;
    unit) echo "tests that need no guest" ;;
    payload) echo "guests of our own on this machine's /dev/kvm" ;;
    guest) echo "stock guests" ;;
    asan) echo "the unit tests with address and undefined-behaviour sanitizers" ;;
    clang) echo "build with clang, thread-safety analysis as errors; unit tests" ;;
    tidy) echo "clang-tidy" ;;
    tsan) echo "the unit tests with the thread sanitizer" ;;
    fuzz) echo "each fuzzer for $FUZZ_SECONDS s" ;;
    sim) echo "injected faults: $SIM_SEEDS more seeds; virtqueues: $QUEUE_SCHEDULES random schedules" ;;
    guest-repeat) echo "stock guests, $GUEST_REPEAT times" ;;
    guest-long) echo "stock guests: many boots, many processors, much data" ;;
  esac
}

counter_of() {
  case $1 in
    unit | asan | clang | tsan) echo ctest ;;
    payload | guest | sim | guest-repeat | guest-long) echo gtest ;;
    *) echo none ;;
  esac
}

# Configures and builds a preset, once in a run; shows the build's output only when it fails.
build_preset() {
  local preset=$1 built=$LOGS_DIR/built-$1
  [[ ! -e $built ]] || return 0
  say "building preset $preset"
  run_logged "$LOGS_DIR/configure-$preset.log" cmake --preset "$preset" &&
    run_logged "$LOGS_DIR/build-$preset.log" cmake --build --preset "$preset" -j "$JOBS" &&
    touch "$built"
}

# The tests of a preset that ctest knows and that need neither /dev/kvm nor a guest.
unit_tests() {
  ctest --preset "$1" -j "$JOBS" --no-tests=error -LE "guest|payload${2:-}"
}

# What `skiff doctor` says of this machine: full (stock kernels boot), emulated (only guests of our own do), none.
host_kind() {
  "$ROOT_DIR/build/dev/bin/skiff" doctor --quiet >/dev/null 2>&1
  case $? in
    0) echo full ;;
    2) echo emulated ;;
    *) echo none ;;
  esac
}

# The names of the test programs that match a pattern, one per line; fails when there are none.
programs() {
  find "$ROOT_DIR/build/dev/bin" -maxdepth 1 -type f -executable -name "$1" -printf '%f\n' | LC_ALL=C sort | grep .
}

# A shell command that runs the test programs one after the other, and fails when one of them did. count_gtest reads
# the lines it adds.
run_programs() {
  local names="$*"
  # shellcheck disable=SC2016 # Expanded by the shell that runs it.
  printf 'failed=0; for p in %s; do echo "## run $p"; "$p"; s=$?; echo "## status $s of $p"; %s; done; exit $failed' \
    "$names" '[ $s = 0 ] || failed=1'
}

# Runs the tests of programs in labs, so many tests in each that it does not wear out. Software emulation of nested
# virtualisation does go wrong at times (docs/lab.md says what was found): tests that did not pass are
# tried up to twice more, in new labs. The log shows all tries, and the report how many tests needed another.
in_lab() {
  local per_lab=$1 name filter failed=0
  for name in "${@:2}"; do
    while IFS= read -r filter; do
      in_lab_of_its_own "$name" "$filter" </dev/null || failed=1
    done < <(tests_of "$name" | xargs -n "$per_lab" | tr ' ' :)
  done
  return "$failed"
}

# The tests of the program NAME that match a GoogleTest filter. A lab that hung or died (statuses 124 and 125) does not
# use up a try.
in_lab_of_its_own() {
  local name=$1 left=$2 log=$LOGS_DIR/lab-program.log status labs tries=3
  echo "## run $name"
  for ((labs = 1; labs <= 6; ++labs)); do
    [[ $labs == 1 ]] || echo "## again $name, in a new lab: $left"
    lab_with "$name" "$left" | tee "$log" && status=0 || status=$?
    echo "## status $status of $name"
    [[ $status != 0 ]] || return 0
    left=$(tests_left "$name" "$left" "$log")
    # Nothing is left when all passed, but the program did not end well.
    [[ -n $left ]] || return "$status"
    [[ $status == 124 || $status == 125 ]] || tries=$((tries - 1))
    [[ $tries != 0 ]] || return "$status"
  done
  return "$status"
}

lab_with() {
  SKIFF_PROGRAM=skiff GTEST_FILTER=$2 \
    "$SCRIPTS_DIR/lab" --build "$ROOT_DIR/build/dev" --timeout 180 --program skiff --program "$1" -- "$1"
}

# The names of the tests of the program NAME that match a filter (default: all), one per line.
tests_of() {
  "$ROOT_DIR/build/dev/bin/$1" --gtest_list_tests ${2:+--gtest_filter="$2"} |
    awk '/^[^ ].*\.( |$)/ { suite = $1 } /^  / { print suite $1 }'
}

# Those of them that have not passed according to LOG, as a GoogleTest filter.
tests_left() {
  tests_of "$1" "$2" | awk -v log_file="$3" '
    BEGIN {
      while ((getline line <log_file) > 0)
        if (line ~ /^\[ +(OK|SKIPPED) \]/) { split(line, part, /\] |[ (,]+[0-9]+ ms/); passed[part[2]] = 1 }
    }
    !($0 in passed) { filter = filter (filter == "" ? "" : ":") $0 }
    END { print filter }'
}

# On this machine, with a private copy of the root disk: tests write to it.
directly() {
  local images status=0
  images=$(mktemp -d "${TMPDIR:-/tmp}/skiff-images.XXXXXX") &&
    "$SCRIPTS_DIR/images" kernel guest rootfs &&
    cp "$CACHE_DIR"/kernel/vmlinu[xz] "$CACHE_DIR"/guest/{modules.cpio,initrd.img} "$images/" &&
    cp --reflink=auto --sparse=always "$CACHE_DIR/rootfs/rootfs.img" "$images/" &&
    SKIFF_IMAGES=$images SKIFF_PROGRAM=skiff PATH=$ROOT_DIR/build/dev/bin:$PATH sh -c "$(run_programs "$@")" || status=$?
  rm -rf "$images"
  return "$status"
}

step_setup() { "$SCRIPTS_DIR/setup" --quiet; }

step_format() {
  git -C "$ROOT_DIR" ls-files -z '*.cc' '*.h' | xargs -0 clang-format-19 --dry-run --Werror
}

step_build() { build_preset dev; }

step_unit() { build_preset dev && unit_tests dev; }

step_payload() {
  local names kind
  build_preset dev || return 1
  mapfile -t names < <(programs '*_payload_tests')
  [[ ${#names[@]} -gt 0 ]] || { echo "no *_payload_tests in build/dev/bin" && return 1; }
  kind=$(host_kind)
  if [[ $kind == none ]]; then
    echo "in the lab: /dev/kvm cannot be used here (build/dev/bin/skiff doctor says why)"
    in_lab 50 "${names[@]}"
  else
    directly "${names[@]}"
  fi
}

# Runs the test programs that match a pattern where stock guests boot; in the lab so many in each.
guest_tests() {
  local pattern=$1 per_lab=$2 names kind
  build_preset dev || return 1
  mapfile -t names < <(programs "$pattern")
  [[ ${#names[@]} -gt 0 ]] || { echo "no $pattern in build/dev/bin" && return 1; }
  kind=$(host_kind)
  case $kind in
    full) echo "directly: this machine's /dev/kvm boots stock kernels" ;;
    emulated) echo "in the lab: this machine's KVM emulates guest kernels, so that stock ones do not boot" ;;
    none) echo "in the lab: /dev/kvm cannot be used here (build/dev/bin/skiff doctor says why)" ;;
  esac
  if [[ $kind == full ]]; then directly "${names[@]}"; else in_lab "$per_lab" "${names[@]}"; fi
}

step_guest() { guest_tests '*_guest_tests' 12; }

step_guest_repeat() {
  local round failed=0
  for ((round = 1; round <= GUEST_REPEAT; ++round)); do
    step_guest || failed=1
  done
  return "$failed"
}

step_guest_long() { guest_tests '*_guest_long_tests' 1; }

step_asan() { build_preset asan && unit_tests asan '|tidy'; }

step_clang() { build_preset clang && unit_tests clang; }

step_tsan() { build_preset tsan && unit_tests tsan '|tidy'; }

step_tidy() {
  # It reads the compile commands of the clang preset, and needs the precompiled headers that a build makes.
  build_preset clang && run-clang-tidy-19 -quiet -p "$ROOT_DIR/build/clang" -j "$JOBS" \
      "^$ROOT_DIR/(loop|block|devices|firmware|vmm|tests)/.*\.cc\$"
}

step_sim() {
  build_preset dev || return 1
  SKIFF_SIM_SEEDS=$SIM_SEEDS SKIFF_QUEUE_SCHEDULES=$QUEUE_SCHEDULES SKIFF_THREAD_SCHEDULES=2000 \
    PATH=$ROOT_DIR/build/dev/bin:$PATH sh -c "$(run_programs sim_tests)"
}

# One fuzzer, its output shown at its end: several run at once. New inputs go into the build folder; the seeds stay as
# they are.
run_fuzzer() {
  local name=${1##*/} status=0 seeds=()
  local corpus=$ROOT_DIR/build/fuzz/corpus/$name log=$LOGS_DIR/fuzz-$name.log
  mkdir -p "$corpus"
  [[ ! -d $ROOT_DIR/tests/fuzz/corpus/$name ]] || seeds=("$ROOT_DIR/tests/fuzz/corpus/$name")
  "$1" -max_total_time="$FUZZ_SECONDS" -print_final_stats=1 -artifact_prefix="$LOGS_DIR/$name-" \
    "$corpus" "${seeds[@]}" >"$log" 2>&1 || status=$?
  echo "## $name: status $status"
  if [[ $status == 0 ]]; then tail -n 12 "$log"; else cat "$log"; fi
  return "$status"
}

step_fuzz() {
  local fuzzers
  build_preset fuzz || return 1
  mapfile -t fuzzers < <(find "$ROOT_DIR/build/fuzz/bin" -name '*_fuzzer' -executable | LC_ALL=C sort)
  [[ ${#fuzzers[@]} -gt 0 ]] || { echo "no *_fuzzer in build/fuzz/bin" && return 1; }
  export -f run_fuzzer
  export ROOT_DIR LOGS_DIR FUZZ_SECONDS
  # shellcheck disable=SC2016 # Expanded by the shell that runs it.
  printf '%s\0' "${fuzzers[@]}" | xargs -0 -n 1 -P "$JOBS" bash -c 'run_fuzzer "$1"' _
}
