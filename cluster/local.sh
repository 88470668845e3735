#!/usr/bin/env bash
# Train on this machine with mpiexec. Copy it, then for example:
#   ./local.sh --data digits --net lenet --save digits.safetensors
#   RANKS=6 ./local.sh --config train.yaml
# One rank becomes the Dask scheduler, one runs the script, the others are workers: one for each NUMA domain of this
# machine, or RANKS - 2. The first line that it prints names the page.
set -euo pipefail

shopt -s nullglob
domains=(/sys/devices/system/node/node[0-9]*)
workers=${#domains[@]}
ranks=${RANKS:-$((2 + (workers > 0 ? workers : 1)))}
if ((ranks < 3)); then
    echo "RANKS=$ranks leaves no worker beside the scheduler and the script: use 3 or more." >&2
    exit 2
fi
cores=$(nproc)
threads=$((cores / (ranks - 2)))

# daskconv runs its own threads and pins each worker to the cores of its domain. A BLAS that starts a thread for every
# core in every rank, or a launcher that ties a rank to one core (Open MPI's default), would fight that.
export OMP_NUM_THREADS=1
export DASK_DASKCONV__THREADS=$((threads > 0 ? threads : 1))

exec mpiexec --bind-to none -n "$ranks" daskconv train "$@"
