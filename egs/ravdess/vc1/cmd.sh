# shellcheck shell=bash disable=SC2034
# Sourced by run.sh: what stands before the commands that take long. "env" runs them here; on a cluster, for instance,
#   train_cmd=(srun --gres=gpu:1 --cpus-per-task=4)

train_cmd=(env)
eval_cmd=(env)
