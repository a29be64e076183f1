#!/usr/bin/env bash
# sbatch docs/scripts/slurm.sh --config quick --name big
#SBATCH --job-name=vgg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before its time is over SLURM sends SIGUSR1 to all processes: they save and end with 138, the job
# goes back into the queue, and --resume auto goes on when its turn comes again.
set -uo pipefail
srun "${PYTHON:-python}" -m vgg_lightning fit --resume auto "$@"
code=$?
if [ "$code" -eq 138 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
