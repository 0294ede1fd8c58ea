#!/usr/bin/env bash
# Runs a command beside a Slurm of two nodes on this machine, which is started before and stopped after it:
#   slurm_cluster.sh COMMAND …
# Needs root, slurm-wlm and munge (apt-get install slurm-wlm munge). A node has one CPU and two terminals that stand for
# GPUs. A node that is killed is missed after 300 seconds, as on a real cluster. SLURM_TEST_DIR: its files, fresh each time.
set -eu
for program in slurmctld slurmd munged; do
  command -v "$program" >/dev/null || { echo "$program is not installed: apt-get install slurm-wlm munge" >&2; exit 2; }
done
D=${SLURM_TEST_DIR:-$(mktemp -d)}
mkdir -p "$D/state" "$D/log"
H=$(hostname -s)
export SLURM_CONF=$D/slurm.conf
cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$H(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool_%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd_%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd_%n.log
SlurmctldPort=27917
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
KillWait=5
MinJobAge=60
MaxArraySize=4
GresTypes=gpu
NodeName=n1 NodeHostname=$H NodeAddr=127.0.0.1 Port=27921 CPUs=1 RealMemory=4000 Gres=gpu:2
NodeName=n2 NodeHostname=$H NodeAddr=127.0.0.1 Port=27922 CPUs=1 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
printf 'NodeName=n[1-2] Name=gpu File=/dev/tty[0-1]\n' >"$D/gres.conf"
if [ ! -S /run/munge/munge.socket.2 ]; then
  mkdir -p /run/munge
  chown munge: /run/munge
  su -s /bin/sh munge -c /usr/sbin/munged
fi
stop() {
  scancel --user=root 2>/dev/null || true
  for pid in "$D"/slurmd_*.pid "$D"/slurmctld.pid; do
    [ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
}
trap stop EXIT
slurmctld -f "$SLURM_CONF"
sleep 2
slurmd -N n1 -f "$SLURM_CONF"
slurmd -N n2 -f "$SLURM_CONF"
for _ in $(seq 30); do
  [ "$(sinfo -h -t idle -o %D 2>/dev/null || echo 0)" = 2 ] && break
  sleep 1
done
"$@"
