#!/bin/bash
# One training on 8 nodes of 8 GPUs: sbatch docs/cluster/slurm.sh RECIPE [more of `puna run`]. See docs/cluster.md.
#SBATCH --job-name=puna
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --exclusive
#SBATCH --time=24:00:00
# Ten minutes before the end, SIGTERM to torchrun, which passes it on: the training saves and ends.
#SBATCH --signal=TERM@600
# Again after a node that failed and after a preemption; the log goes on.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=puna-%j.log
set -u

recipe=${1:?name a recipe: sbatch slurm.sh RECIPE}
shift
out=${OUT:-$PWD/out} # on a file system that all nodes share
python=${PYTHON:-$PWD/.venv/bin/python}

export OMP_NUM_THREADS=8
# What torchrun gives its processes between SIGTERM and SIGKILL; it would be 30 s. Below the ten minutes above.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=480

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
mkdir -p "$out"
started=$(mktemp "$out/.started-XXXXXX")

srun --kill-on-bad-exit=1 "$python" -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m puna run "$recipe" --out "$out" "$@"
code=$?

# torchrun ends with 1 whatever its processes end with. What got further (a checkpoint, a stage, a part of the
# corpus) is worth another start: a stop that was saved, a machine that was lost. What did not, such as a key
# that is wrong (2), is for a person.
further=$(find "$out" \( -name index.json -o -name artifact.json -o -name '*.parquet' \) -newer "$started" -print -quit)
rm -f "$started"
if [ "$code" -ne 0 ] && [ -n "$further" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
