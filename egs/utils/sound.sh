# shellcheck shell=bash disable=SC2154
# Sourced by the recipes of the sound models: data directories and features of every sound corpus that is there.

sound_corpora=(ravdess_speech ravdess_song nemo emodb an4 ljspeech nit_song070)

# begin NAME [VARIABLE...]   check the options, set tag, exp and device, and write exp/TAG/run.sh; VARIABLE: options
# of this recipe beyond those that all have.
begin() {
  [[ $stage-$stop_stage-$nj-$ngpu =~ ^[0-9]-[1-9][0-9]*-[1-9][0-9]*-[01]$ ]] ||
    die "--stage, --stop_stage, --nj: whole numbers; --ngpu: 0 or 1"
  ((stage > 1)) || [ -n "$corpora" ] || die "--corpora FOLDER is needed: where the corpora lie; README.md says which"
  [ -f "$config" ] || die "$config: does not exist; --config names a YAML file"
  tag=${tag:-$1_$(basename "$config" .yaml)}
  exp=exp/$tag
  device=$([ "$ngpu" = 0 ] && echo cpu || echo cuda)
  if ((stop_stage >= 2)) && { [ -n "$corpora" ] || [ ! -f "$exp/run.sh" ]; }; then
    remember "$exp" corpora data config tag nj ngpu "${@:2}"
  fi
}

# prepare_sound CORPORA DATA   prepare each corpus found as CORPORA/NAME (or CORPORA/NAME_anything) into DATA/NAME, and
# extract features with waves; as steps of stage 1. What is not there is left out, with a word.
prepare_sound() {
  local corpora=$1 data=$2 found=0 name part folder
  ((stage <= 1)) || return 0
  for name in "${sound_corpora[@]}"; do
    folder=$(find "$corpora" -maxdepth 1 -name "$name*" 2>/dev/null | sort | head -n 1)
    if [ -z "$folder" ]; then
      log "stage 1: $corpora holds no $name: left out"
      continue
    fi
    found=1
    run 1 "$data/$name/.prepare.done" affgen data prepare "$name" "$folder" "$data/$name"
    for part in train test; do
      run 1 "$data/$name/$part/.features.done" affgen data features "$data/$name/$part" --waves --jobs "$nj"
    done
  done
  ((found)) || die "$corpora: holds none of ${sound_corpora[*]}; README.md says how their folders are called"
}

# parts DATA PART [named]   print --data DATA/NAME/PART for every corpus prepared, or --data NAME=DATA/NAME/PART.
parts() {
  local name
  for name in "${sound_corpora[@]}"; do
    [ ! -f "$1/$name/$2/wav.scp" ] || printf -- '--data %s ' "${3:+$name=}$1/$name/$2"
  done
}
