#!/usr/bin/env bash
# The speaker encoder: from seven corpora to a model and its equal error rates. Run it in its own folder:
#
#   ./run.sh --corpora FOLDER [--stage 1] [--stop_stage 4] [--config conf/train.yaml] [--tag NAME] [--nj 1] [--ngpu 0]
#
#   1 data and features   2 train   3 measure   4 pack (with --pack FOLDER)
#
# It can be stopped and run again at any time: steps that are done are left out, training goes on where it was.
set -euo pipefail

# options
corpora=               # folder that holds the corpora, each in a folder of its name
data=../../data        # data directories and features, shared with the other sound recipes
stage=1                # first stage to do
stop_stage=4           # last stage to do
config=conf/train.yaml # what differs from the defaults
tag=                   # results go to exp/TAG; default: encoder1_ and the name of the config
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

begin encoder1

prepare_sound "$corpora" "$data"

read -r -a train_parts <<<"$(parts "$data" train)"
run 2 "$exp/.train.done" "${train_cmd[@]}" \
  affgen speaker train --config "$config" "${train_parts[@]}" --out "$exp" --device "$device" --resume

held=()
for name in ravdess_speech ravdess_song nemo emodb an4 ljspeech; do # one song of NIT's one singer proves nothing
  [ ! -f "$data/$name/test/wav.scp" ] || held+=("$data/$name/test")
done
run 3 "$exp/.evaluate.done" "${eval_cmd[@]}" \
  affgen speaker evaluate "${held[@]}" --model "$exp/model" --out "$exp/metrics.json"
run 3 "$exp/.baseline.done" "${eval_cmd[@]}" \
  affgen speaker evaluate "${held[@]}" --baseline --out "$exp/metrics_baseline.json"

if [ -n "$pack" ]; then
  run 4 - cp -R "$exp/model/." "$pack"
fi
