#!/usr/bin/env bash
# The voice converter: from the corpora to a model and its figures. Run it in its own folder:
#
#   ./run.sh --corpora FOLDER [--stage 1] [--stop_stage 5] [--config conf/train.yaml] [--tag NAME] [--nj 1] [--ngpu 0]
#
#   1 data and features   2 train   3 the judge   4 figures on held-out speakers   5 pack (with --pack FOLDER)
#
# It can be stopped and run again at any time: steps that are done are left out, training goes on where it was.
set -euo pipefail

# options
corpora=               # folder that holds the corpora, each in a folder of its name
data=../../data        # data directories and features, shared with the other sound recipes
stage=1                # first stage to do
stop_stage=5           # last stage to do
config=conf/train.yaml # what differs from the defaults
tag=                   # results go to exp/TAG; default: vc1_ and the name of the config
nj=1                   # processor threads; the last bits of a result depend on it
ngpu=0                 # 1 trains on a GPU
pack=                  # folder that stage 5 copies the model to
# end

[ -f ../../utils/log.sh ] || { echo "error: run it in its own folder: cd $(dirname "$0")" >&2; exit 2; }
. ../../utils/log.sh
. ../../utils/parse_options.sh
. ../../utils/sound.sh
. ./path.sh
. ./cmd.sh

sound_corpora=(ravdess_speech nemo emodb an4 ljspeech) # song has another prosody

begin vc1

prepare_sound "$corpora" "$data"

read -r -a train_parts <<<"$(parts "$data" train)"
run 2 "$exp/.train.done" "${train_cmd[@]}" \
  affgen vc train --config "$config" "${train_parts[@]}" --out "$exp" --device "$device" --threads "$nj" --resume

# The judge comes before anything is measured. Where it was stopped, it begins anew.
if ((stage <= 3 && stop_stage >= 3)) && [ ! -f "$exp/.judge.done" ]; then
  rm -rf "$exp/judge"
fi
run 3 "$exp/.judge.done" "${train_cmd[@]}" \
  python -m vc.judge_train --data "$data/ravdess_speech/train" --data "$data/emodb/train" \
  --test "$data/ravdess_speech/test" --out "$exp/judge"

if [[ $(basename "$config") != emoreg* ]]; then # vc evaluate measures converters, not the published system
  run 4 "$exp/.evaluate.done" "${eval_cmd[@]}" \
    affgen vc evaluate "$data/ravdess_speech/test" --model "$exp/model" --out "$exp/metrics.json" --threads "$nj"
  run 4 - python local/results.py "$exp/metrics.json"
fi

if [ -n "$pack" ]; then
  run 5 - cp -R "$exp/model/." "$pack"
fi
