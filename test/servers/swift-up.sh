#!/usr/bin/env bash
# Starts a second real S3 server on loopback, of other making than Ceph: OpenStack Swift with its s3api, one copy of
# everything on this disk. No systemd, no container; Debian's python3-swift and memcached, installed when missing.
#
#   MILLRACE_SWIFT_DIR      state: config, objects, logs, pids (default: .swift in the repository)
#   MILLRACE_SWIFT_PORT     the S3 port (default 18190); TLS is on the next, and the 4 after that are used as well
#   MILLRACE_SWIFT_WORKERS  processes of each proxy and of the object server (default 2)
#
# The last line of stdout is: MILLRACE_SWIFT_ENDPOINT=… MILLRACE_SWIFT_TLS_ENDPOINT=… MILLRACE_SWIFT_CA=… (the path of
# the certificate to trust) MILLRACE_SWIFT_ACCESS_KEY_ID=… MILLRACE_SWIFT_SECRET_ACCESS_KEY=… MILLRACE_SWIFT_REGION=…
# swift-down.sh ends it.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$repository/test/servers/common.sh"
state=${MILLRACE_SWIFT_DIR:-$repository/.swift}
# By this swift-down.sh knows our processes.
export MILLRACE_SWIFT_STATE=$state
port=${MILLRACE_SWIFT_PORT:-18190}
workers=${MILLRACE_SWIFT_WORKERS:-2}
tls_port=$((port + 1)) object_port=$((port + 2)) container_port=$((port + 3)) account_port=$((port + 4))
cache_port=$((port + 5))
account=millrace
user=tests
secret_key=millrace-test-secret-of-no-worth-0000002
region=us-east-1
endpoint=http://127.0.0.1:$port
tls_endpoint=https://127.0.0.1:$tls_port
# Debian's own: another Python before it in PATH would not find python3-swift.
python=/usr/bin/python3

if [ -e "$state" ]; then
  echo "There is a state folder at $state already: run swift-down.sh first." >&2
  exit 1
fi
if ! "$python" -c 'import swift' 2>/dev/null || ! command -v memcached || ! command -v openssl; then
  install_packages python3-swift memcached openssl
fi >/dev/null

config=$state/etc
mkdir -p "$state"/{etc,log,pid,recon,disk/one}
make_certificate

cat >"$config/swift.conf" <<CONF
[swift-hash]
swift_hash_path_prefix = millrace
swift_hash_path_suffix = millrace
[storage-policy:0]
name = one
default = yes
CONF

proxy() { # name port lines
  cat >"$config/$1.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $2
$3
workers = $workers
user = $(id -un)
swift_dir = $config
log_level = WARNING
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
# the default of half a second to a second is too short where the tests keep every core busy
conn_timeout = 5
node_timeout = 60
recoverable_node_timeout = 60
object_chunk_size = 1048576
client_chunk_size = 1048576
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$cache_port
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = $region
dns_compliant_bucket_names = true
# S3's own limit, where Swift's default is a tenth of it; slo has one of its own
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_${account}_$user = $secret_key .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
max_manifest_size = 16777216
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
CONF
}

backend() { # kind port workers
  cat >"$config/$1-server.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $2
workers = $3
user = $(id -un)
swift_dir = $config
devices = $state/disk
mount_check = false
disable_fallocate = true
recon_cache_path = $state/recon
log_level = WARNING
[pipeline:main]
pipeline = $1-server
[app:$1-server]
use = egg:swift#$1
CONF
  local ring
  for ring in 'create 6 1 1' "add r1z1-127.0.0.1:$2/one 1" rebalance; do
    # Debian's command for it is in the package of the services.
    # shellcheck disable=SC2086
    "$python" -c 'import sys; from swift.cli.ringbuilder import main; main(["", *sys.argv[1:]])' \
      "$config/$1.builder" $ring >>"$state/log/ring-$1.out" 2>&1 || [ $? = 1 ]
  done
}

proxy proxy-plain "$port" ''
proxy proxy-tls "$tls_port" "cert_file = $state/ca.pem
key_file = $state/key.pem"
backend account "$account_port" 1 &
backend container "$container_port" 1 &
backend object "$object_port" "$workers" &
wait
cat >>"$config/object-server.conf" <<CONF
disk_chunk_size = 1048576
network_chunk_size = 1048576
# an update of a listing that takes longer than this is left to the updater, and the listing lags
container_update_timeout = 15
[object-updater]
interval = 5
CONF
for kind in account container object; do
  [ -f "$config/$kind.ring.gz" ] || give_up Swift "no ring for $kind"
done

start memcached memcached -u "$(id -un)" -l 127.0.0.1 -p "$cache_port" -U 0 -m 64
for kind in account-server container-server object-server object-updater proxy-plain proxy-tls; do
  start "$kind" "$python" "$repository/test/servers/swift-serve.py" "$kind" "$config"
done

is_open() {
  (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
for _ in $(seq 300); do
  if answers "$endpoint/" && answers "$tls_endpoint/" &&
    is_open "$object_port" && is_open "$container_port" && is_open "$account_port" && is_open "$cache_port"; then
    echo "MILLRACE_SWIFT_ENDPOINT=$endpoint MILLRACE_SWIFT_TLS_ENDPOINT=$tls_endpoint MILLRACE_SWIFT_CA=$state/ca.pem MILLRACE_SWIFT_ACCESS_KEY_ID=$account:$user MILLRACE_SWIFT_SECRET_ACCESS_KEY=$secret_key MILLRACE_SWIFT_REGION=$region"
    exit 0
  fi
  sleep 0.2
done
give_up Swift 'something does not answer'
