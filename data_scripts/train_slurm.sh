#!/bin/bash
# A training over several machines with Slurm: sbatch data_scripts/train_slurm.sh PRESET [key=value]...
#
# One torchrun a machine starts a process a GPU; they meet at the first machine. Two minutes before
# the time limit Slurm sends TERM, upon which the state is saved and the job ends. Submit the same
# line again and the last run goes on; after a machine's failure Slurm does that by itself.
#SBATCH --job-name=etadlite
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Threads of each process on the CPU; torchrun's own choice is one.
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))

exec srun torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" \
    --rdzv_backend=c10d --rdzv_endpoint="$first:29500" --rdzv_id="$SLURM_JOB_ID" \
    -m etadlite train "$@" --out runs --resume last
