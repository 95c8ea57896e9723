#!/usr/bin/env bash
# Ends exactly the daemons that ceph-up.sh started, by the pids it wrote down, and removes its state folder.
#   MILLRACE_CEPH_DIR   as for ceph-up.sh
#   MILLRACE_CEPH_KEEP  1: leave the state folder, for its logs
set -uo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$repository/test/servers/common.sh"
state=${MILLRACE_CEPH_DIR:-$repository/.ceph}
keep=${MILLRACE_CEPH_KEEP:-}
mark=CEPH_CONF=$state/ceph.conf
if [ ! -d "$state/pid" ]; then
  echo "There is no Ceph of ours in $state."
  exit 0
fi
# The gateway first: it would wait for the others.
stop_all rgw osd mon
echo 'Ceph is down.'
