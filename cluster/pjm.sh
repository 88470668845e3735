#!/usr/bin/env bash
# Train on a Fujitsu machine with PJM (Fugaku, FX1000, FX700). Copy it, set the lines marked EDIT, then: pjsub pjm.sh
# Options of daskconv train may come along: pjsub -x OPTIONS="--config train.yaml" pjm.sh
# EDIT: the resource group, and how many nodes.
#PJM -L rscgrp=small
#PJM -L node=4
#PJM -L elapse=01:00:00
# Workers of a node, and 2: the first one also holds the scheduler and the script.
#PJM --mpi max-proc-per-node=6
#PJM -j
set -euo pipefail

# EDIT: NUMA domains of a node, and the cores of one. An A64FX has 4 (Fujitsu calls them CMGs) of 12.
workers=${WORKERS:-4}
threads=${THREADS:-12}

# EDIT: the environment that holds daskconv[mpi], its mpi4py built with Fujitsu's MPI.
if [ -f "$HOME/daskconv/bin/activate" ]; then source "$HOME/daskconv/bin/activate"; fi

# EDIT: what to train; images lie on a file system that every node sees.
read -ra options <<<"${OPTIONS:---data digits --save model.safetensors}"

# One line a rank, the node that it runs on. Rank 0, the scheduler, and rank 1, the script, need little: they share the
# first node with its workers.
places=$(mktemp "${TMPDIR:-/tmp}/daskconv-places.XXXXXX")
trap 'rm -f "$places"' EXIT
printf '(0)\n(0)\n' >"$places"
for ((node = 0; node < PJM_NODE; node++)); do
    for ((worker = 0; worker < workers; worker++)); do echo "($node)"; done
done >>"$places"
ranks=$(wc -l <"$places")

# daskconv runs its own threads, and pins each worker to the cores of its domain: the launcher must not, and a BLAS with
# threads of its own would fight them for the same cores.
export OMP_NUM_THREADS=1
export DASK_DASKCONV__THREADS="$threads"
export PLE_MPI_STD_EMPTYFILE=off # no empty output files, one for each rank

mpiexec --vcoordfile "$places" --mca plm_ple_cpu_affinity 0 -n "$ranks" daskconv train "${options[@]}"
