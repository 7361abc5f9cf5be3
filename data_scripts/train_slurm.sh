#!/bin/bash
# A training over several machines with Slurm: sbatch data_scripts/train_slurm.sh PRESET [key=value]...
#
# One torchrun a machine starts a process a GPU; they meet at the first machine. Three minutes before
# the time limit Slurm sends TERM to this script: the training saves its state and ends, and the job
# goes back into the queue. When it starts again, it continues its own run, in runs/slurm_JOB;
# `--resume RUN` at the end continues another job's. Slurm requeues the job after the failure of a
# machine, too. A lost process is started again at once, three times at most.
# An error of the training itself ends the job.
#SBATCH --job-name=etadlite
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Threads of each process on the CPU; torchrun's own choice is one.
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))

asked_to_stop=no
stop() {
    asked_to_stop=yes
    kill -TERM "$training"  # srun hands it on to every torchrun, and that to every process
}
trap stop TERM

srun torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" --max-restarts=3 \
    --rdzv_backend=c10d --rdzv_endpoint="$first:29500" --rdzv_id="$SLURM_JOB_ID" \
    -m etadlite train --out "runs/slurm_$SLURM_JOB_ID" --resume last "$@" &
training=$!
wait "$training"
code=$?
while kill -0 "$training" 2>/dev/null; do  # a signal ends the first wait at once
    wait "$training"
    code=$?
done

if [ "$asked_to_stop" = yes ] && [ "$code" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
