#!/usr/bin/env bash
# Ends exactly the processes that swift-up.sh started, by the pids it wrote down, and removes its state folder.
#   MILLRACE_SWIFT_DIR   as for swift-up.sh
#   MILLRACE_SWIFT_KEEP  1: leave the state folder, for its logs
set -uo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$repository/test/servers/common.sh"
state=${MILLRACE_SWIFT_DIR:-$repository/.swift}
keep=${MILLRACE_SWIFT_KEEP:-}
mark=MILLRACE_SWIFT_STATE=$state
if [ ! -d "$state/pid" ]; then
  echo "There is no Swift of ours in $state."
  exit 0
fi
# The proxies first: they would wait for the others.
stop_all proxy-plain proxy-tls object-updater object-server container-server account-server memcached
echo 'Swift is down.'
