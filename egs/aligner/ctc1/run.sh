#!/usr/bin/env bash
# The aligner: from corpora to a model, its boundaries against those marked by people, its pseudo-phonemes. Run it in its
# own folder:
#
#   ./run.sh --corpora FOLDER [--stage 1] [--stop_stage 4] [--config conf/train.yaml] [--tag NAME] [--nj 1] [--ngpu 0]
#
#   1 data and features   2 train, with the times of labels and without   3 measure   4 pack (with --pack FOLDER)
#
# It can be stopped and run again at any time: steps that are done are left out, training goes on where it was.
# data/ and exp/ hold nothing but what this script makes; both are safe to delete.
set -euo pipefail

# options
corpora=               # folder that holds the corpora, each in a folder of its name
data=../../data        # data directories and features, shared with the other sound recipes
labels=                # folder of EmoDB's .lablaut files; default: emodb*/phones or emodb*/lablaut in the corpora
stage=1                # first stage to do
stop_stage=4           # last stage to do
config=conf/train.yaml # what differs from the defaults
tag=                   # results go to exp/TAG; default: ctc1_ and the name of the config
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

if [ -z "$labels" ] && [ -n "$corpora" ]; then
  labels=$(find "$corpora"/emodb*/ -maxdepth 1 \( -name phones -o -name lablaut \) 2>/dev/null | sort | head -n 1) || true
fi
[ -n "$labels" ] || ((stop_stage == 1)) || die "--labels FOLDER is needed: where EmoDB's .lablaut files lie"
begin ctc1 labels

prepare_sound "$corpora" "$data"

train_parts=()
for pair in en=an4 en=ljspeech en=ravdess_speech de=emodb pl=nemo; do # sung files may be cut: README.md
  [ ! -f "$data/${pair#*=}/train/wav.scp" ] || train_parts+=(--data "${pair%%=*}=$data/${pair#*=}/train")
done
for marks in true false; do
  out=$exp$([ $marks = true ] || echo _without_marks)
  run 2 "$out/.train.done" "${train_cmd[@]}" python -m affgen.align --config "$config" "${train_parts[@]}" \
    --labels "$labels" --out "$out" --device "$device" --resume marks=$marks
done

run 3 "$exp/.evaluate.done" "${eval_cmd[@]}" \
  python local/results.py --data "$data" --labels "$labels" --model "this model=$exp/model" \
  --model "without marks=${exp}_without_marks/model" --out "$exp/results.json"

if [ -n "$pack" ]; then
  run 4 - cp -R "$exp/model/." "$pack"
fi
