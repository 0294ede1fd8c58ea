#!/usr/bin/env bash
# The driver as a small job of its own, so that no terminal must stay open. It submits the jobs that do the work:
#   sbatch examples/slurm.sh WORKSPACE
# WORKSPACE is on a file system that all nodes see; its climb.toml says run.engine = "slurm" and, under [engine], what
# the workers need. Ended before its time, by a limit or a node, it is queued again and goes on.
#SBATCH --job-name=climb
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=2-00:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=climb-%j.log
set -u
climb run "${1:?the workspace}" &
driver=$!
trap 'kill -USR1 $driver' USR1 TERM
wait $driver
status=$?
[ $status -gt 128 ] && { wait $driver; status=$?; }  # a signal came: wait until the driver has stopped
[ $status -eq 75 ] && exec scontrol requeue "$SLURM_JOB_ID"  # 75: stopped by a signal, to go on later
exit $status
