# shellcheck shell=bash disable=SC2153 # Variables of scripts/lab.
# SPDX-License-Identifier: GPL-2.0-or-later
# What one run of the lab adds to its initramfs: programs with their libraries, files, the command. Sourced by scripts/lab.

# Copies the shared libraries of the programs into the payload, at the paths where the loader looks for them.
add_libraries() {
  local tree=$1 library
  shift
  while IFS= read -r library; do
    [[ -e $tree$library ]] || install -D -m 755 "$library" "$tree$library"
  done < <(ldd "$@" 2>/dev/null | grep -o '/[^ )]*\.so[^ )]*' | sort -u)
}

is_elf() { [[ -f $1 && $(head -c 4 "$1" | tail -c 3) == ELF ]]; }

# The programs of the build, without their debug information: it is most of their size, and all of it is loaded at boot.
add_build() {
  local tree=$1 program programs=()
  for program in "$BUILD"/bin/*; do
    [[ -f $program && -x $program ]] || continue
    [[ ${#PROGRAMS[@]} == 0 || " ${PROGRAMS[*]} " == *" ${program##*/} "* ]] || continue
    programs+=("$program")
    if ! is_elf "$program" || ! strip -g -o "$tree/skiff/bin/${program##*/}" "$program" 2>/dev/null; then
      cp "$program" "$tree/skiff/bin/"
    fi
  done
  [[ ${#programs[@]} == 0 ]] || add_libraries "$tree" "${programs[@]}"
}

add_file() {
  local tree=$1 host=${2%%:*} name=
  [[ $2 != *:* ]] || name=${2#*:}
  [[ -e $host ]] || fail "--file $host: no such file"
  name=${name:-$(basename "$host")}
  case $name in
    /bin/* | /sbin/*) name=/usr$name ;; # Links in the lab: a directory of that name would replace them.
    /*) ;;
    *) name=/skiff/files/$name ;;
  esac
  mkdir -p "$(dirname "$tree$name")"
  cp -rL "$host" "$tree$name"
  ! is_elf "$host" || add_libraries "$tree" "$host"
}

add_qemu() {
  local tree=$1 qemu firmware directory file
  qemu=$(command -v qemu-system-x86_64)
  # It looks for its firmware relative to where it lies.
  mkdir -p "$tree/usr/bin"
  strip -g -o "$tree/usr/bin/qemu-system-x86_64" "$qemu"
  add_libraries "$tree" "$qemu"
  for firmware in bios-256k.bin bios-microvm.bin qboot.rom linuxboot_dma.bin kvmvapic.bin pvh.bin multiboot_dma.bin \
    vgabios-stdvga.bin efi-virtio.rom; do
    for directory in /usr/share/qemu /usr/share/seabios /usr/lib/ipxe/qemu; do
      file=$directory/$firmware
      [[ ! -e $file ]] || install -D -m 644 "$file" "$tree/usr/share/qemu/$firmware"
    done
  done
}

# The variables of this run and its command, as shell scripts for the lab's init.
add_command() {
  local tree=$1 name
  for name in $(compgen -e | grep -E '^(SKIFF|GTEST)_|^TERM$'); do
    case $name in
      SKIFF_CACHE | SKIFF_IMAGES | SKIFF_LAB) ;;
      *) echo "export $name=$(shell_quote "${!name}")" ;;
    esac
  done >"$tree/skiff/run/env"
  echo "export SKIFF_IMAGES=/skiff/images SKIFF_LAB=1" >>"$tree/skiff/run/env"
  if [[ ${#COMMAND[@]} == 1 ]]; then
    printf '%s\n' "${COMMAND[0]}"
  else
    shell_quote "${COMMAND[@]}"
  fi >"$tree/skiff/run/command"
}

make_payload() {
  local tree=$1 file
  mkdir -p "$tree"/skiff/{bin,run,files}
  add_build "$tree"
  for file in "${FILES[@]}"; do
    add_file "$tree" "$file"
  done
  [[ $WITH_QEMU == no ]] || add_qemu "$tree"
  add_command "$tree"
}

pack_payload() {
  (cd "$1" && find . -mindepth 1 -printf '%P\0' | cpio --quiet -0 -o -H newc -R 0:0)
}
