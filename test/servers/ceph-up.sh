#!/usr/bin/env bash
# Starts a real S3 server on loopback: Ceph's radosgw with one monitor and one object store that keeps everything in
# memory. No systemd, no container; Debian's radosgw, ceph-mon and ceph-osd, installed when they are missing.
#
#   MILLRACE_CEPH_DIR       state: config, logs, pids (default: .ceph in the repository)
#   MILLRACE_CEPH_PORT      the S3 port (default 18090); the 20 ports after it are used as well, the last one for TLS
#   MILLRACE_CEPH_BYTES     the size of the store (default 6 GiB; memory is taken as objects come)
#   MILLRACE_CEPH_MIN_PART  the smallest part but the last (default 5 MiB, as on AWS)
#
# The last line of stdout is: MILLRACE_S3_ENDPOINT=… MILLRACE_S3_TLS_ENDPOINT=… MILLRACE_S3_CA=… (the path of the
# certificate to trust) AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_REGION=…
# ceph-down.sh ends it.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
state=${MILLRACE_CEPH_DIR:-$repository/.ceph}
port=${MILLRACE_CEPH_PORT:-18090}
bytes=${MILLRACE_CEPH_BYTES:-6442450944}
min_part=${MILLRACE_CEPH_MIN_PART:-5242880}
access_key=MILLRACETESTKEY00001
secret_key=millrace-test-secret-of-no-worth-0000001
tls_port=$((port + 20))
endpoint=http://127.0.0.1:$port
tls_endpoint=https://127.0.0.1:$tls_port
export LC_ALL=C.UTF-8
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ -e "$state" ]; then
  echo "There is a state folder at $state already: run ceph-down.sh first." >&2
  exit 1
fi

if ! command -v radosgw || ! command -v ceph-mon || ! command -v ceph-osd || ! command -v openssl; then
  install_packages radosgw ceph-mon ceph-osd openssl
fi >/dev/null

mkdir -p "$state"/{log,pid,mon,osd,rgw,sock}
touch "$state/keyring"
make_certificate
cluster=$(cat /proc/sys/kernel/random/uuid)
export CEPH_CONF=$state/ceph.conf

cat >"$CEPH_CONF" <<CONF
[global]
fsid = $cluster
mon host = [v2:127.0.0.1:$((port + 1))/0]
auth cluster required = none
auth service required = none
auth client required = none
# radosgw would talk to the monitor in secure mode only, which there is none of without authentication
ms mon client mode = crc secure
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
ms bind port min = $((port + 2))
ms bind port max = $((tls_port - 1))
run dir = $state/sock
admin socket = $state/sock/\$name.asok
log file = $state/log/\$name.log
log to stderr = false
err to stderr = true
keyring = $state/keyring
# one copy of everything, in few placement groups
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
# seven pools are made at the start, each in rounds of the monitor's that take a second by default
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
[mon]
mon data = $state/mon
[osd]
osd data = $state/osd
osd objectstore = memstore
memstore device bytes = $bytes
osd scrub load threshold = 0
osd numa auto affinity = false
osd op num shards = 2
[client]
rgw frontends = beast endpoint=127.0.0.1:$port ssl_endpoint=127.0.0.1:$tls_port ssl_certificate=$state/ca.pem ssl_private_key=$state/key.pem tcp_nodelay=1
rgw data = $state/rgw
rgw thread pool size = 64
rgw run sync thread = false
rgw enable usage log = false
rgw dynamic resharding = false
rgw num rados handles = 1
rgw lc max objs = 4
# what is deleted frees its memory within seconds, where Ceph would wait two hours
rgw gc max objs = 8
rgw gc obj min wait = 2
rgw gc processor period = 3
rgw gc processor max time = 30
rgw multipart min part size = $min_part
CONF

monmaptool --create --clobber --fsid "$cluster" --addv a "[v2:127.0.0.1:$((port + 1))]" "$state/monmap" \
  >"$state/log/monmap.out" 2>&1
ceph-mon --mkfs -i a --monmap "$state/monmap" >"$state/log/mon-mkfs.out" 2>&1
start mon ceph-mon -f -i a
ceph --connect-timeout 30 mon stat >/dev/null 2>&1 || give_up Ceph 'no monitor'
ceph osd require-osd-release pacific >/dev/null 2>&1 || true

osd_uuid=$(cat /proc/sys/kernel/random/uuid)
osd=$(ceph osd create "$osd_uuid" 2>/dev/null)
ceph osd crush add "osd.$osd" 1 root=default host=loopback >/dev/null 2>&1
ceph-osd -i "$osd" --mkfs --osd-uuid "$osd_uuid" >"$state/log/osd-mkfs.out" 2>&1
start osd ceph-osd -f -i "$osd"
for _ in $(seq 150); do
  ceph osd stat 2>/dev/null | grep -q '1 up' && break
  sleep 0.2
done
ceph osd stat 2>/dev/null | grep -q '1 up' || give_up Ceph 'no object store'

# makes the gateway's pools and its zone on the way
radosgw-admin user create --uid=millrace --display-name=millrace \
  --access-key="$access_key" --secret-key="$secret_key" >"$state/log/user.out" 2>&1 || give_up Ceph 'no user'
start rgw radosgw -f -n client.rgw.loopback
for _ in $(seq 300); do
  if answers "$endpoint/" && answers "$tls_endpoint/"; then
    echo "MILLRACE_S3_ENDPOINT=$endpoint MILLRACE_S3_TLS_ENDPOINT=$tls_endpoint MILLRACE_S3_CA=$state/ca.pem AWS_ACCESS_KEY_ID=$access_key AWS_SECRET_ACCESS_KEY=$secret_key AWS_REGION=us-east-1"
    exit 0
  fi
  sleep 0.2
done
give_up Ceph 'no gateway'
