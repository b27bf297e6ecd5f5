# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Shared by the scripts in this folder: messages, the cache, Debian packages and kernel modules.
# Use: source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck disable=SC2034 # Used by the scripts that source this file.
SCRIPTS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT_DIR=$(dirname "$SCRIPTS_DIR")
CACHE_DIR=${SKIFF_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/skiff}
IMAGES_DIR=$CACHE_DIR/images
# mkfs.ext4 and others lie there, where Debian does not look for ordinary users.
PATH=$PATH:/usr/sbin:/sbin

# Messages go to standard error: standard output belongs to the command that was asked for.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# Runs a command with its output in a log that is shown only when the command fails.
run_logged() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 && return 0
  local status=$?
  say "failed with status $status: $*"
  tail -n 30 "$log" >&2
  return "$status"
}

# Takes the lock LOCKFILE on a new file descriptor, whose number is left in LOCK_FD; says so when it has to wait.
take_lock() {
  local lockfile=$1 what=$2
  mkdir -p "$(dirname "$lockfile")"
  exec {LOCK_FD}>>"$lockfile"
  flock --nonblock "$LOCK_FD" && return 0
  say "waiting for $what (lock $lockfile)"
  flock "$LOCK_FD"
}

# The packages among the arguments that are not installed, one per line.
missing_packages() {
  local package
  for package in "$@"; do
    # Unknown to dpkg, or known but removed: both count as missing.
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] ||
      echo "$package"
  done
}

# Quotes its arguments so that a POSIX shell reads them back as the same words.
shell_quote() {
  local word quoted=
  for word in "$@"; do
    quoted+=" '${word//\'/\'\\\'\'}'"
  done
  printf '%s\n' "${quoted# }"
}
