# shellcheck shell=bash disable=SC2154
# Sourced by recipes: messages, and stages that are done once.

# log MESSAGE [DEPTH]   print time, script, line (of the caller DEPTH functions up) and a message on standard error.
log() {
  echo "$(date '+%Y-%m-%dT%H:%M:%S') (${0##*/}:${BASH_LINENO[${2:-0}]}) $1" >&2
}

# die MESSAGE   print one line on standard error and leave with exit code 2: something that the user can put right.
die() {
  echo "error: $1" >&2
  exit 2
}

# run STAGE MARKER COMMAND...   do one step of a stage, then write the words of COMMAND to the file MARKER.
# Left out are the steps outside --stage to --stop_stage, and those whose MARKER holds the same words already; a step
# whose MARKER is "-" has none and is never taken for done.
run() {
  local number=$1 marker=$2
  shift 2
  ((stage <= number && number <= stop_stage)) || return 0
  if [ -f "$marker" ] && [ "$(cat "$marker")" = "$*" ]; then
    log "stage $number: done before; to repeat it: rm $marker" 1
    return 0
  fi
  log "stage $number: $*" 1
  [ "$marker" = - ] || rm -f "$marker"
  "$@"
  [ "$marker" = - ] || { mkdir -p "$(dirname "$marker")" && echo "$*" >"$marker"; }
}

# remember FOLDER NAME...   write FOLDER/run.sh, which calls the recipe again with the values that these options have.
# FOLDER is two levels below the recipe.
remember() {
  local folder=$1 name command=./run.sh version
  shift
  for name; do command+=$(printf ' --%s %q' "$name" "${!name}"); done
  version=$(git describe --always --dirty 2>/dev/null) || version=unknown
  version="$(affgen --version), commit $version"
  mkdir -p "$folder"
  cat >"$folder/run.sh" <<END
#!/usr/bin/env bash
# Goes on with what this folder holds, or makes it again from nothing ($version).
# Further options count more: --tag NAME makes it once more, in a folder of its own.
cd "\$(dirname "\$0")/../.." && exec $command "\$@"
END
  chmod +x "$folder/run.sh"
}
