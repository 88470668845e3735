#!/usr/bin/env bash
# Train on this machine with mpiexec. Copy it, then for example:
#   RANKS=6 ./local.sh --data digits --net lenet --save digits.safetensors
# One rank becomes the Dask scheduler, one runs the script, the other RANKS - 2 are workers; at least 3 ranks.
# The first line that it prints names the page.
set -euo pipefail

ranks=${RANKS:-4}
if ((ranks < 3)); then
    echo "RANKS=$ranks leaves no worker beside the scheduler and the script: use 3 or more." >&2
    exit 2
fi

# daskconv runs its own threads (--threads) and gives each one core; a BLAS that starts a thread for every core
# in every rank would fight them. Nothing else needs to be set.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# Open MPI pins each rank to a core, and its threads with it: there, write `mpiexec --bind-to none -n ...`.
exec mpiexec -n "$ranks" daskconv train "$@"
