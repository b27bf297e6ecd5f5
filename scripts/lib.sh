# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Shared by the scripts in this folder: messages, the cache, Debian packages and kernel modules.
# Use: source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck disable=SC2034 # Used by the scripts that source this file.
SCRIPTS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT_DIR=$(dirname "$SCRIPTS_DIR")
CACHE_DIR=${SKIFF_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/skiff}
IMAGES_DIR=$CACHE_DIR/images

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

# Prints the modules NAME... of the tree MODULES_DIR (a lib/modules/VERSION) with all they depend on, as paths
# relative to MODULES_DIR, in the order in which they have to be loaded. Built-in ones are left out.
modules_in_order() {
  local dir=$1
  shift
  local -A path_of=() seen=()
  local file name
  while IFS= read -r file; do
    name=${file##*/}
    name=${name%.ko}
    path_of[${name//-/_}]=$file
  done < <(cd "$dir" && find kernel -name '*.ko')
  for name in "$@"; do
    visit_module "$name"
  done
}

# Depth first: what a module needs comes before it. Works on the variables of modules_in_order.
visit_module() {
  local name=${1//-/_} needs need
  [[ -z ${seen[$name]:-} ]] || return 0
  seen[$name]=1
  if [[ -z ${path_of[$name]:-} ]]; then
    grep -q "/${name//_/[-_]}\.ko$" "$dir/modules.builtin" && return 0
    die "the kernel in $dir has no module $name; update the module list in scripts/recipes"
  fi
  needs=$(grep -az '^depends=' "$dir/${path_of[$name]}" | tr -d '\0') || true
  needs=${needs#depends=}
  for need in ${needs//,/ }; do
    visit_module "$need"
  done
  echo "${path_of[$name]}"
}
