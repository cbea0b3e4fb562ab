#!/usr/bin/env bash
# The vocoder: from the corpora to a model and its figures. Run it in its own folder:
#
#   ./run.sh --corpora FOLDER [--stage 1] [--stop_stage 4] [--config conf/train.yaml] [--tag NAME] [--nj 1] [--ngpu 0]
#
#   1 data and features   2 train   3 copy synthesis measured   4 pack (with --pack FOLDER)
#
# It can be stopped and run again at any time: steps that are done are left out, training goes on where it was.
set -euo pipefail

# options
corpora=               # folder that holds the corpora, each in a folder of its name
data=../../data        # data directories and features, shared with the other sound recipes
stage=1                # first stage to do
stop_stage=4           # last stage to do
config=conf/train.yaml # what differs from the defaults
tag=                   # results go to exp/TAG; default: vocos1_ and the name of the config
nj=1                   # processor threads; the last bits of a result depend on it
ngpu=0                 # 1 trains on a GPU
pack=                  # folder that stage 4 copies the model to
# end

[ -f ../../utils/log.sh ] || { echo "error: run it in its own folder: cd $(dirname "$0")" >&2; exit 2; }
. ../../utils/log.sh
. ../../utils/parse_options.sh
. ../../utils/sound.sh
. ./path.sh
. ./cmd.sh

begin vocos1

prepare_sound "$corpora" "$data"

read -r -a train_parts <<<"$(parts "$data" train)"
run 2 "$exp/.train.done" "${train_cmd[@]}" \
  affgen vocoder train --config "$config" "${train_parts[@]}" --out "$exp" --device "$device" --resume

read -r -a test_parts <<<"$(parts "$data" test named)"
run 3 "$exp/.evaluate.done" "${eval_cmd[@]}" \
  python local/results.py "${test_parts[@]}" --model "neural=$exp/model" --out "$exp/results"

if [ -n "$pack" ]; then
  run 4 - cp -R "$exp/model/." "$pack"
fi
