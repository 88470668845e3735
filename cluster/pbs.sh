#!/usr/bin/env bash
# Train on a PBS Pro (OpenPBS) cluster. Copy it, set the lines marked EDIT, then: qsub pbs.sh
# Options of daskconv train may come along: qsub -v OPTIONS="--config train.yaml" pbs.sh
#PBS -N daskconv
#PBS -j oe
#PBS -l walltime=01:00:00
# EDIT: nodes (select), cores of a node (ncpus), and its NUMA domains (mpiprocs; lscpu shows them): a worker for each.
#PBS -l select=4:ncpus=64:mpiprocs=2
set -euo pipefail
cd "$PBS_O_WORKDIR"

# EDIT: the environment that holds daskconv[mpi], its mpi4py built with the MPI loaded here.
# module load python mpi
if [ -f "$HOME/daskconv/bin/activate" ]; then source "$HOME/daskconv/bin/activate"; fi

# EDIT: what to train; images lie on a file system that every node sees.
read -ra options <<<"${OPTIONS:---data digits --save model.safetensors}"

# Rank 0, the scheduler, and rank 1, the script, need little: they share the first node with its workers.
hosts=$(mktemp "${TMPDIR:-/tmp}/daskconv-hosts.XXXXXX")
trap 'rm -f "$hosts"' EXIT
first=$(head -n 1 "$PBS_NODEFILE")
printf '%s\n' "$first" "$first" >"$hosts"
cat "$PBS_NODEFILE" >>"$hosts"
ranks=$(wc -l <"$hosts")
workers_of_a_node=$(grep -cxF "$first" "$PBS_NODEFILE")

# daskconv runs its own threads, and pins each worker to the cores of its domain: the launcher must not, and a BLAS with
# threads of its own would fight them for the same cores.
export OMP_NUM_THREADS=1
export DASK_DASKCONV__THREADS=$((NCPUS / workers_of_a_node))

# These words suit MPICH, Intel MPI and Open MPI.
mpiexec --hostfile "$hosts" --bind-to none -n "$ranks" daskconv train "${options[@]}"
