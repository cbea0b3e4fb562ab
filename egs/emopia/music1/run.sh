#!/usr/bin/env bash
# MusER on EMOPIA: from the corpus to a model, its figures and those of an ablation. Run it in its own folder:
#
#   ./run.sh --corpus FOLDER [--stage 1] [--stop_stage 7] [--config conf/train.yaml] [--tag NAME] [--nj 1] [--ngpu 0]
#
#   1 data   2 validate   3 evaluator   4 train   5 generate and measure   6 ablations   7 pack (with --pack FOLDER)
#
# It can be stopped and run again at any time: steps that are done are left out, training goes on where it was.
# data/ and exp/ hold nothing but what this script makes; both are safe to delete.
set -euo pipefail

# options
corpus=                # folder of EMOPIA: table.tsv, or midis/ and split/
stage=1                # first stage to do
stop_stage=7           # last stage to do
config=conf/train.yaml # what differs from the defaults
tag=                   # results go to exp/TAG; default: music1_ and the name of the config
nj=1                   # processor threads; the last bits of a result depend on it
ngpu=0                 # 1 trains on a GPU
pack=                  # folder that stage 7 copies the model to
# end

[ -f ../../utils/log.sh ] || { echo "error: run it in its own folder: cd $(dirname "$0")" >&2; exit 2; }
. ../../utils/log.sh
. ../../utils/parse_options.sh
. ./path.sh
. ./cmd.sh

[[ $stage-$stop_stage-$nj-$ngpu =~ ^[0-9]-[1-9][0-9]*-[1-9][0-9]*-[01]$ ]] ||
  die "--stage, --stop_stage, --nj: whole numbers; --ngpu: 0 or 1"
((stage > 1)) || [ -n "$corpus" ] || die "--corpus FOLDER is needed: where EMOPIA lies; README.md says how to get it"
[ -f "$config" ] || die "$config: does not exist; --config names a YAML file"

tag=${tag:-music1_$(basename "$config" .yaml)}
exp=exp/$tag
device=$([ "$ngpu" = 0 ] && echo cpu || echo cuda)
measure=(affgen music evaluate data/val --train data/train --pieces 100)
if ((stop_stage >= 4)) && { [ -n "$corpus" ] || [ ! -f "$exp/run.sh" ]; }; then
  remember "$exp" corpus config tag nj ngpu
fi

run 1 data/.prepare.done affgen data prepare emopia "$corpus" data

run 2 data/.train.done affgen data validate data/train
run 2 data/.val.done affgen data validate data/val

run 3 exp/.evaluator.done python -c \
  "from music.evaluator_train import train_evaluator as t; t('data/train', 'exp/evaluator', held_out_dir='data/val')"

run 4 "$exp/.train.done" "${train_cmd[@]}" \
  affgen music train --config "$config" --data data/train --out "$exp" --device "$device" --resume

run 5 "$exp/.evaluate.done" "${eval_cmd[@]}" \
  "${measure[@]}" --model "$exp/model" --keep "$exp/pieces" --out "$exp/metrics.json"

for variant in no_prior:--prior=none no_guidance:--guidance=1 markov:--baseline; do
  run 6 "$exp/.${variant%%:*}.done" "${eval_cmd[@]}" \
    "${measure[@]}" --model "$exp/model" "${variant#*:}" --out "$exp/metrics_${variant%%:*}.json"
done
for ablation in conf/no_*.yaml; do
  other=exp/music1_$(basename "$ablation" .yaml)
  run 6 "$other/.train.done" "${train_cmd[@]}" \
    affgen music train --config "$ablation" --data data/train --out "$other" --device "$device" --resume
  run 6 "$other/.evaluate.done" "${eval_cmd[@]}" \
    "${measure[@]}" --model "$other/model" --out "$other/metrics.json"
done

if [ -n "$pack" ]; then
  run 7 - cp -R "$exp/model/." "$pack"
fi
