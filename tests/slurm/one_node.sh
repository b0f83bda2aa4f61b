# SPDX-License-Identifier: Apache-2.0
#
# Read by the scripts beside it: a Slurm of one node in the folder $slurm, without systemd, for root.
# Debian's packages: slurm-wlm munge.

port=${QNEXT_SLURM_PORT:-26817}

write_configuration() {
  local host cores memory
  host=$(hostname -s)
  cores=$(nproc)
  memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
  mkdir -p "$slurm"/{state,spool,munge}
  chmod 711 "$slurm" "$slurm/munge"
  head -c 1024 /dev/urandom >"$slurm/munge/key"
  chmod 400 "$slurm/munge/key"
  # A requeued job begins when the credential of its last run is no longer valid.
  cat >"$slurm/slurm.conf" <<EOF
ClusterName=qnext
SlurmctldHost=$host
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/munge
AuthInfo=socket=$slurm/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=100000,bf_interval=2
JobRequeue=1
KillWait=20
MinJobAge=300
ReturnToService=2
NodeName=$host CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=compute Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
}

stop_slurm() {
  local name
  for name in slurmd slurmctld munged; do
    [ ! -s "$slurm/$name.pid" ] || kill "$(cat "$slurm/$name.pid")" 2>/dev/null || true
  done
}

start_slurm() {
  write_configuration
  export SLURM_CONF=$slurm/slurm.conf
  munged --force --key-file="$slurm/munge/key" --socket="$slurm/munge/socket" \
    --pid-file="$slurm/munged.pid" --log-file="$slurm/munge/log" --seed-file="$slurm/munge/seed" \
    --num-threads=2
  slurmctld -c
  slurmd
  local second
  for second in $(seq 30); do
    if sinfo --noheader --format %T 2>/dev/null | grep -q idle; then
      return 0
    fi
    sleep 1
  done
  sinfo || true
  tail -n 5 "$slurm"/*.log
  return 1
}
