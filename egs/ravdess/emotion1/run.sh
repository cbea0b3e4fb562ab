#!/usr/bin/env bash
# The emotion encoder: from RAVDESS, nEMO and EmoDB to a model and its figures. Run it in its own folder:
#
#   ./run.sh --corpora FOLDER [--stage 1] [--stop_stage 4] [--config conf/train.yaml] [--tag NAME] [--nj 1] [--ngpu 0]
#
#   1 data and features   2 train   3 figures on held-out speakers   4 pack (with --pack FOLDER)
#
# It can be stopped and run again at any time: steps that are done are left out, training goes on where it was.
set -euo pipefail

# options
corpora=               # folder that holds the corpora, each in a folder of its name
data=../../data        # data directories and features, shared with the other sound recipes
stage=1                # first stage to do
stop_stage=4           # last stage to do
config=conf/train.yaml # what differs from the defaults
tag=                   # results go to exp/TAG; default: emotion1_ and the name of the config
nj=1                   # processor threads; the last bits of a result depend on it
ngpu=0                 # 1 trains on a GPU
pack=                  # folder that stage 4 writes the model to, with its figures in the card
# end

[ -f ../../utils/log.sh ] || { echo "error: run it in its own folder: cd $(dirname "$0")" >&2; exit 2; }
. ../../utils/log.sh
. ../../utils/parse_options.sh
. ../../utils/sound.sh
. ./path.sh
. ./cmd.sh

begin emotion1

sound_corpora=(ravdess_speech ravdess_song nemo emodb) # those with more than one emotion
((stage > 1)) || prepare_sound "$corpora" "$data"

read -r -a train_parts <<<"$(parts "$data" train)"
run 2 "$exp/.train.done" "${train_cmd[@]}" python -m affgen.emotion.train \
  --config "$config" "${train_parts[@]}" --out "$exp" --device "$device" --threads "$nj" --resume

figures=(python local/results.py --root "$data" --model "$exp/model")
run 3 "$exp/.evaluate.done" "${eval_cmd[@]}" "${figures[@]}" --out "$exp/metrics.json"

if [ -n "$pack" ]; then
  run 4 - "${figures[@]}" --metrics "$exp/metrics.json" --pack "$pack"
fi
