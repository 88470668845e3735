#!/usr/bin/env bash
# Train on a Slurm cluster. Copy it, set the lines marked EDIT, then: sbatch slurm.sh [more options of daskconv train]
#SBATCH --job-name=daskconv
#SBATCH --output=daskconv-%j.log
#SBATCH --time=01:00:00
# EDIT: tasks = 2 + workers (rank 0 is the scheduler, rank 1 the script, the others are workers), one worker a
# socket or NUMA node is a good start; nodes * cores must hold ntasks * cpus-per-task.
#SBATCH --nodes=4
#SBATCH --ntasks=6
#SBATCH --cpus-per-task=16
set -euo pipefail

# EDIT: the environment that holds daskconv[mpi], its mpi4py built with the MPI loaded here.
# module load python mpi
source "$HOME/daskconv/bin/activate"

# EDIT: images on a file system that every node sees.
data=${DATA:-digits}
save=${SAVE:-model.safetensors}

# daskconv runs its own threads; a BLAS with threads of its own would fight them for the same cores.
export OMP_NUM_THREADS=1
# Since Slurm 22.05 srun no longer takes --cpus-per-task from sbatch by itself.
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# How srun talks to MPI: pmi2 for MPICH and Intel MPI, pmix for Open MPI; `srun --mpi=list` shows what is there.
export SLURM_MPI_TYPE="${SLURM_MPI_TYPE:-pmi2}"

# This script and rank 0, the scheduler, run on the job's first node, so this tunnel shows the page.
login=${SLURM_SUBMIT_HOST:-login-node}
echo "The page: run  ssh -N -J $USER@$login -L 8787:127.0.0.1:8787 $USER@$(hostname)"
echo "on your own machine and open http://127.0.0.1:8787/daskconv"

srun daskconv train --data "$data" --threads "$SLURM_CPUS_PER_TASK" --save "$save" "$@"
