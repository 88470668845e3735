#!/usr/bin/env bash
# Train on a Slurm cluster. Copy it, set the lines marked EDIT, then: sbatch slurm.sh [options of daskconv train]
#SBATCH --job-name=daskconv
#SBATCH --output=daskconv-%j.log
#SBATCH --time=01:00:00
#SBATCH --nodes=4
# EDIT: NUMA domains of a node (lscpu shows them), and the cores of one: a worker for each domain.
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=32
# SIGTERM two minutes before the time is over: the step ends, and what was trained is saved.
#SBATCH --signal=TERM@120
set -euo pipefail

# EDIT: the environment that holds daskconv[mpi], its mpi4py built with the MPI loaded here.
# module load python mpi
if [ -f "$HOME/daskconv/bin/activate" ]; then source "$HOME/daskconv/bin/activate"; fi

# EDIT: what to train, where nothing was given; images lie on a file system that every node sees.
if (($# == 0)); then set -- --data digits --save model.safetensors; fi

# Rank 0, the scheduler, and rank 1, the script, need little: they share the first node with its workers.
hosts=$(mktemp "${TMPDIR:-/tmp}/daskconv-hosts.XXXXXX")
trap 'rm -f "$hosts"' EXIT
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
printf '%s\n' "${nodes[0]}" "${nodes[0]}" >"$hosts"
for node in "${nodes[@]}"; do
    for ((worker = 0; worker < SLURM_NTASKS_PER_NODE; worker++)); do echo "$node"; done
done >>"$hosts"
ranks=$(wc -l <"$hosts")

# daskconv runs its own threads, and pins each worker to the cores of its domain: Slurm does not, and a BLAS with
# threads of its own would fight them for the same cores.
export OMP_NUM_THREADS=1
export DASK_DASKCONV__THREADS="$SLURM_CPUS_PER_TASK"
# How srun talks to MPI: pmi2 for MPICH and Intel MPI, pmix for Open MPI; `srun --mpi=list` shows what is there.
export SLURM_MPI_TYPE="${SLURM_MPI_TYPE:-pmi2}"
export SLURM_HOSTFILE="$hosts"

# srun would take these as its own: there are two ranks more, and each may use every core of the job on its node.
unset SLURM_NTASKS_PER_NODE SLURM_CPUS_PER_TASK
srun --ntasks="$ranks" --overcommit --distribution=arbitrary --cpu-bind=none daskconv train "$@"
