#!/usr/bin/env bash
# Ends exactly the daemons that ceph-up.sh started, by the pids it wrote down, and removes its state folder.
#   MILLRACE_CEPH_DIR   as for ceph-up.sh
#   MILLRACE_CEPH_KEEP  1: leave the state folder, for its logs
set -uo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
state=${MILLRACE_CEPH_DIR:-$repository/.ceph}
if [ ! -d "$state/pid" ]; then
  echo "There is no Ceph of ours in $state."
  exit 0
fi

# A pid may have gone to another program since, after a reboot for one: ours has our config in its environment.
is_ours() {
  { tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null | grep -qxF "CEPH_CONF=$state/ceph.conf"
}

# The gateway first: it would wait for the others.
for name in rgw osd mon; do
  [ -f "$state/pid/$name" ] || continue
  pid=$(cat "$state/pid/$name")
  is_ours "$pid" && kill -TERM -- "-$pid" 2>/dev/null
done
for name in rgw osd mon; do
  [ -f "$state/pid/$name" ] || continue
  pid=$(cat "$state/pid/$name")
  for _ in $(seq 50); do
    is_ours "$pid" || break
    sleep 0.1
  done
  is_ours "$pid" && kill -KILL -- "-$pid" 2>/dev/null
  rm -f "$state/pid/$name"
done
[ "${MILLRACE_CEPH_KEEP:-}" = 1 ] || rm -rf "$state"
echo 'Ceph is down.'
