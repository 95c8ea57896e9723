# What the scripts of the servers share. Those that start one set `state`, its folder, first; it has log/ and pid/.

# Both servers may be started at once, and apt takes one at a time; its own lock does not cover all that it does.
install_packages() {
  (
    flock 9
    export DEBIAN_FRONTEND=noninteractive
    install() { apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >/dev/null 2>&1; }
    install "$@" || { apt-get update -qq && install "$@"; }
  ) 9>"${TMPDIR:-/tmp}/millrace-apt.lock"
}

# Each daemon leads a process group of its own, so that its down script can end it with its workers, and nothing else.
start() {
  local name=$1
  shift
  setsid "$@" >"$state/log/$name.out" 2>&1 </dev/null &
  echo $! >"$state/pid/$name"
}

# Of its own authority: a client that trusts ca.pem trusts the server, and nobody else has the key.
make_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=millrace test server" \
    -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout "$state/key.pem" -out "$state/ca.pem" 2>/dev/null
}

answers() {
  curl -sS --cacert "$state/ca.pem" --max-time 2 -o /dev/null "$1" 2>/dev/null
}

give_up() {
  echo "$1 did not come up: $2. Its logs are in $state/log." >&2
  tail -n 20 "$state"/log/*.out >&2
  exit 1
}

# Ends the daemons that were started with `start` in $state, in the order given, and removes the folder unless $keep.
# A pid may have gone to another program since, after a reboot for one: ours have $mark in their environment.
stop_all() {
  local name pid
  for name in "$@"; do
    [ -f "$state/pid/$name" ] || continue
    pid=$(cat "$state/pid/$name")
    is_ours "$pid" && kill -TERM -- "-$pid" 2>/dev/null
  done
  for name in "$@"; do
    [ -f "$state/pid/$name" ] || continue
    pid=$(cat "$state/pid/$name")
    for _ in $(seq 50); do
      is_ours "$pid" || break
      sleep 0.1
    done
    is_ours "$pid" && kill -KILL -- "-$pid" 2>/dev/null
    rm -f "$state/pid/$name"
  done
  [ "$keep" = 1 ] || rm -rf "$state"
}

is_ours() {
  { tr '\0' '\n' <"/proc/$1/environ"; } 2>/dev/null | grep -qxF "$mark"
}
