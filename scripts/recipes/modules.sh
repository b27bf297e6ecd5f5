# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Which modules a module needs, and in which order. Sourced by the recipes guest and lab.

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
