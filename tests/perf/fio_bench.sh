#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# In the lab: a stock guest with 4 vCPUs and a disk of 4 queues, on which fio writes, reads and verifies from each vCPU;
# under Skiff in its modes and under QEMU, one after the other. Prints a line for each run: what it cost for each request.
# Ends with status 1 when fio found other data than it wrote, or a guest did not come to its end.
#
# fio_bench.sh [SIZE-OF-EACH-JOB [CONTESTANT...]]
size=${1:-4m}
[ $# = 0 ] || shift
contestants=${*:-skiff-iothread skiff-vcpu skiff-auto qemu-iothread}
images=${SKIFF_IMAGES:-/skiff/images}
work=/tmp/fio-bench
memory=384
kvm=/sys/kernel/debug/kvm
statistics='exits io_exits mmio_exits halt_exits irq_injections'
command_line="console=ttyS0 quiet mitigations=off panic=-1 cpus=4 fio_size=$size"

# A disk in memory whose requests take 30 us, and end by an interrupt as those of real ones do.
make_disk() {
  load null_blk
  rmmod null_blk
  insmod "$(find /lib/modules -name 'null_blk.ko*')" nr_devices=0
  mount -t configfs configfs /sys/kernel/config 2>/dev/null
  mkdir /sys/kernel/config/nullb/nullb0 && cd /sys/kernel/config/nullb/nullb0 || return 1
  echo 64 >size
  echo 1 >memory_backed
  echo 2 >irqmode
  echo 30000 >completion_nsec
  echo 1 >power
  cd - >/dev/null || return 1
  disk=/dev/nullb0
  [ -b $disk ]
}

# initrd.img with the script below in the place of its init.
make_initrd() {
  mkdir -p $work/tree
  cp /skiff/files/fio_guest.sh $work/tree/init
  chmod 755 $work/tree/init
  (cd $work/tree && echo init | cpio -o -H newc 2>/dev/null) >$work/script.cpio
  cat "$images/initrd.img" $work/script.cpio >$work/initrd.img
}

start() {
  case $1 in
    skiff-*)
      exec skiff run --kernel "$images/vmlinuz" --initrd $work/initrd.img --cpus 4 --memory ${memory}M --serial stdio \
        --disk "path=$disk,format=raw,direct=on,queues=4,submit=${1#skiff-}" \
        --disk "path=$images/fio.img,format=raw,readonly=on,queues=1" --cmdline "$command_line"
      ;;
    qemu-*)
      exec qemu-system-x86_64 -M q35 -accel kvm -cpu host -smp 4 -m $memory -nodefaults -no-user-config -display none \
        -chardev stdio,id=console,signal=off -serial chardev:console -name bench,debug-threads=on \
        -object iothread,id=io0 \
        -blockdev "driver=host_device,node-name=disk,filename=$disk,aio=native,cache.direct=on" \
        -device virtio-blk-pci,drive=disk,iothread=io0,num-queues=4 \
        -blockdev "driver=host_device,node-name=fio,filename=$(readlink -f "$images/fio.img"),read-only=on" \
        -device virtio-blk-pci,drive=fio,num-queues=1 \
        -kernel "$images/vmlinuz" -initrd $work/initrd.img -append "$command_line"
      ;;
  esac
}

# How often threads of the VMM slept: those of vCPUs, and all others.
sleeps() {
  for status in /proc/"$child"/task/*/status; do
    awk '/^Name:/ {vcpu = /vcpu|CPU/} /^voluntary/ {print vcpu ? "vcpu" : "io", $2}' "$status" 2>/dev/null
  done | awk '{n[$1] += $2} END {print n["io"] + 0, n["vcpu"] + 0}'
}

counters() {
  for name in $statistics; do printf '%s ' "$(cat $kvm/$name)"; done
  sleeps
}

await() {
  until grep -q "$1" $work/output; do
    kill -0 $child 2>/dev/null || { echo "$2 ended before its guest said $1:" && tail -n 30 $work/output && return 1; }
    sleep 0.05
  done
}

# One run: the guest waits at both marks until the counters were read.
measure() {
  : >$work/output
  rm -f $work/input
  mkfifo $work/input
  exec 3<>$work/input
  start "$1" <$work/input >$work/output 2>&1 3>&- &
  child=$!
  await FIO-READY "$1" || return 1
  before=$(counters)
  echo >&3
  await FIO-END "$1" || return 1
  after=$(counters)
  echo >&3
  await FIO-DONE "$1" || return 1
  echo >&3
  exec 3>&-
  wait $child
  # FIO-DONE STATUS REQUESTS INTERRUPTS QUEUES HUNDREDTHS, all but the status since FIO-READY.
  line=$(tr -d '\r' <$work/output | sed -n 's/.*FIO-DONE //p')
  # shellcheck disable=SC2086 # Words.
  set -- "$1" $line
  if [ "$2" != 0 ]; then
    echo "$1: fio ended with status $2; what it said:"
    cat $work/output
    return 1
  fi
  echo "$before $after" | awk -v name="$1" -v requests="$3" -v interrupts="$4" -v queues="$5" -v time="$6" '{
    n = NF / 2
    printf "result %s %d %.0f", name, queues, requests * 100 / time
    for (i = 1; i <= n; ++i) printf " %.3f", ($(n + i) - $i) / requests
    printf " %.3f %d\n", interrupts / requests, requests
  }'
}

mkdir -p $work
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
make_disk || { echo "no null_blk that keeps what is written" && exit 1; }
make_initrd
# What QEMU and the guest's fio load, once before anybody is measured.
cat "$(readlink -f "$images/fio.img")" >/dev/null
for contestant in $contestants; do
  measure "$contestant" || exit 1
done
