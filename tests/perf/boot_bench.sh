#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# In the lab: a stock kernel up to its first process, in Skiff, QEMU microvm and QEMU q35, interleaved. What counts is the
# guest's own uptime when its first program runs, and the exits up to then; medians over the rounds.
rounds=${1:-5}
images=${SKIFF_IMAGES:-/skiff/images}
work=/tmp/boot-bench
statistics='exits io_exits mmio_exits halt_exits irq_exits irq_injections'
# One process that says how old the machine is, and waits to be killed.
program='mount -t proc proc /proc; read up rest </proc/uptime; echo BENCH-UP $up; sleep 1000'
command_line="console=ttyS0 quiet mitigations=off panic=-1 rdinit=/bin/sh -- -c \"$program\""

start() {
  case $1 in
    skiff)
      exec skiff run --kernel "$images/vmlinuz" --initrd "$images/initrd.img" --cpus "$2" --memory 256M \
        --serial "file:$3" --cmdline "$command_line"
      ;;
    microvm)
      exec qemu-system-x86_64 -M microvm -accel kvm -cpu host -smp "$2" -m 256 -nodefaults -no-user-config \
        -display none -serial "file:$3" -kernel "$images/vmlinuz" -initrd "$images/initrd.img" -append "$command_line"
      ;;
    q35)
      exec qemu-system-x86_64 -M q35 -accel kvm -cpu host -smp "$2" -m 256 -nodefaults -no-user-config \
        -display none -serial "file:$3" -kernel "$images/vmlinuz" -initrd "$images/initrd.img" -append "$command_line"
      ;;
  esac
}

# One boot: appends "VMM CPUS uptime wall exits..." to the results.
measure() {
  output=$work/serial
  : >"$output"
  begin=$(cut -d' ' -f1 /proc/uptime)
  start "$1" "$2" "$output" </dev/null >"$work/log" 2>&1 &
  child=$!
  until grep -q BENCH-UP "$output"; do
    kill -0 $child 2>/dev/null || { echo "$1 ended before its guest was up:" && cat "$work/log" && return 1; }
    sleep 0.05
  done
  line="$1 $2 $(sed -n 's/.*BENCH-UP \([0-9.]*\).*/\1/p' "$output") $(cut -d' ' -f1 /proc/uptime | awk -v b="$begin" '{print $1 - b}')"
  for name in $statistics; do line="$line $(cat /sys/kernel/debug/kvm/$name)"; done
  kill -9 $child
  wait $child 2>/dev/null
  echo "$line" >>"$work/results"
  echo "  $line"
}

# The median of one column for one VMM and number of vCPUs.
median() { awk -v v="$1" -v c="$2" -v f="$3" '$1 == v && $2 == c {print $f}' "$work/results" | sort -n | awk '{a[NR] = $1} END {print a[int((NR + 1) / 2)]}'; }

mkdir -p $work
: >"$work/results"
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
echo "  VMM vCPUs uptime wall $statistics"
for round in $(seq "$rounds"); do
  for cpus in 1 4; do
    for vmm in skiff microvm q35; do measure $vmm $cpus || exit 1; done
  done
done
echo "medians of $rounds rounds"
for cpus in 1 4; do
  for vmm in skiff microvm q35; do
    line="$vmm, $cpus vCPU: uptime $(median $vmm $cpus 3) s, since start $(median $vmm $cpus 4) s"
    field=5
    for name in $statistics; do
      line="$line, $name $(median $vmm $cpus $field)"
      field=$((field + 1))
    done
    echo "$line"
  done
done
