# shellcheck shell=bash disable=SC2154
# Sourced by run.sh: finds affgen, and fixes what the last bits of a result depend on.

root=$(cd ../../.. && pwd)
if [ -x "$root/.venv/bin/affgen" ]; then
  PATH=$root/.venv/bin:$PATH # the environment that "make install" makes
fi
command -v affgen >/dev/null || die "affgen is not installed; run: make -C $root install"

export PATH OMP_NUM_THREADS=$nj MKL_NUM_THREADS=$nj
