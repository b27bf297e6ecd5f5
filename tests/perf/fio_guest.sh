#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Process 1 of the guest of fio_bench.sh: fio on the disk with four jobs, one for each vCPU; then what it took.
. /lib/skiff/setup

for word in $(cat /proc/cmdline); do
  case $word in fio_size=*) size=${word#fio_size=} ;; esac
done
# The disk that can be written to is the one to be measured.
for block in /sys/class/block/vd?; do
  if [ "$(cat "$block/ro")" = 0 ]; then disk=${block##*/}; else programs=${block##*/}; fi
done
device=$(basename "$(readlink "/sys/class/block/$disk/device")")

mount -t ext4 -o ro "/dev/$programs" /mnt
for place in dev proc sys; do mount --bind /$place /mnt/$place; done
mount -t tmpfs tmpfs /mnt/tmp

requests() { awk '{print $1 + $5 + $12 + $16}' "/sys/class/block/$disk/stat"; }
interrupts() {
  awk -v name="$device-req" '$0 ~ name {for (i = 2; i <= 5; ++i) n += $i} END {print n + 0}' /proc/interrupts
}
hundredths() { awk '{printf "%d", $1 * 100}' /proc/uptime; }
# Each job has a part of the disk of its own and verifies what it wrote while the others go on.
run_fio() {
  chroot /mnt /usr/bin/fio --name=verify --filename="/dev/$disk" --direct=1 --ioengine=libaio --iodepth=4 \
    --rw=randrw --bs=4k --size="$size" --offset_increment="$size" --numjobs=4 --cpus_allowed=0-3 \
    --cpus_allowed_policy=split --verify=crc32c --verify_fatal=1 --verify_backlog=64 --do_verify=1 \
    --randrepeat=0 --group_reporting --thread --eta=never --output=/tmp/report
}

chroot /mnt /usr/bin/fio --version
echo FIO-READY
read -r _
requests_before=$(requests)
interrupts_before=$(interrupts)
begin=$(hundredths)
run_fio
status=$?
end=$(hundredths)
requests_after=$(requests)
interrupts_after=$(interrupts)
# A short word: each letter on the serial port is several exits.
echo FIO-END
read -r _
[ $status = 0 ] || cat /mnt/tmp/report
echo "FIO-DONE $status $((requests_after - requests_before)) $((interrupts_after - interrupts_before))" \
  "$(ls "/sys/class/block/$disk/mq" | wc -l) $((end - begin))"
read -r _
poweroff -f
