# What every script of the native stack shares. Source it; it starts nothing.
#
# FIRN_CACHE       downloads and unpacked programs, kept between runs (default ~/.cache/firn); ours are under stack/
# FIRN_STACK_RUN   state, logs and pid files of one running stack (default ${TMPDIR:-/tmp}/firn-stack); safe to delete when stopped
# FIRN_STACK_PORT  first of fourteen ports on 127.0.0.1 (default 18090); remembered in the run folder
# FIRN_WAREHOUSE   where the catalogs keep their tables (default: warehouse/ in the run folder)
# FIRN_JDK17, FIRN_JDK25  JDK homes, where the search below does not find them
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${FIRN_CACHE:-$HOME/.cache/firn}/stack
RUN=${FIRN_STACK_RUN:-${TMPDIR:-/tmp}/firn-stack}

# The ports of a run are chosen once, by whoever starts its first server; later calls read them back.
settings() {
  local remembered=
  [ ! -s "$RUN/port" ] || remembered=$(cat "$RUN/port")
  local p=${remembered:-${FIRN_STACK_PORT:-18090}}
  KAFKA_PORT=$p KAFKA_SASL_PORT=$((p + 1)) KAFKA_SSL_PORT=$((p + 2)) KAFKA_SASL_SSL_PORT=$((p + 3)) KAFKA_CONTROLLER_PORT=$((p + 4))
  REGISTRY_PORT=$((p + 5)) REGISTRY_MANAGEMENT_PORT=$((p + 6)) REST_PORT=$((p + 7)) TRINO_PORT=$((p + 8)) POSTGRES_PORT=$((p + 9))
  S3_PORT=$((p + 10)) TRINO_DELTA_PORT=$((p + 11))
  AZURE_PORT=$((p + 12)) GCS_PORT=$((p + 13))
  S3_KEY=firn S3_SECRET=firn-secret S3_BUCKET=lake
  remembered=
  [ ! -s "$RUN/warehouse.path" ] || remembered=$(cat "$RUN/warehouse.path")
  WAREHOUSE=${remembered:-${FIRN_WAREHOUSE:-$RUN/warehouse}}
  FIRST_PORT=$p
}
settings

remember() { # called before anything is started
  mkdir -p "$RUN" "$WAREHOUSE"
  echo "$FIRST_PORT" >"$RUN/port"
  echo "$WAREHOUSE" >"$RUN/warehouse.path"
}

say() { echo "[$NAME] $*" >&2; }
fail() { say "$*"; exit 1; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }

# jdk MAJOR: prints the home of a JDK (with javac) of that major version, else of the next newer one.
jdk() {
  local wanted=$1 named="FIRN_JDK$1" best= best_major=999 home major
  if [ -n "${!named:-}" ]; then echo "${!named}"; return; fi
  local on_path=
  ! on_path=$(command -v javac) || on_path=$(dirname "$(dirname "$(readlink -f "$on_path")")")
  for home in "${JAVA_HOME:-}" "$on_path" /usr/lib/jvm/* /opt/*jdk* /opt/java/* /usr/local/*jdk* "$HOME"/.sdkman/candidates/java/* "$HOME"/.jdks/*; do
    # an empty name would find /bin/java
    [ -n "$home" ] && [ -x "$home/bin/java" ] && [ -x "$home/bin/javac" ] || continue
    major=$(sed -n 's/^JAVA_VERSION="\{0,1\}\([0-9]*\).*/\1/p' "$home/release" 2>/dev/null || true)
    [ -n "$major" ] || major=$("$home/bin/java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
    if [ "${major:-0}" -ge "$wanted" ] && [ "$major" -lt "$best_major" ]; then best=$home best_major=$major; fi
  done
  [ -n "$best" ] || { say "no JDK $wanted or newer found: install one, or point $named at its home"; return 1; }
  echo "$best"
}

# A program that is not there is fetched with apt where we may; otherwise its absence is an error that names the package.
need() { # command package
  # Go's own installer puts it where no shell looks
  [ "$1" != go ] || command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v "$1" >/dev/null && return
  apt_install "$2"
  command -v "$1" >/dev/null || fail "$1 is missing: install the package $2"
}
apt_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "missing package(s) $*: install them (this script may not)"
  say "apt-get install $*"
  exec 8>/var/lock/firn-apt.lock && flock 8
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
  }
  exec 8>&-
}

# home_of NAME-VERSION RECIPE...: the folder of one installed program. A changed recipe is another folder, so that an old cache never
# passes for the new one.
home_of() {
  local name=$1; shift
  echo "$CACHE/$name-$(cat "$@" | cksum | cut -d' ' -f1)"
}

# once HOME FUNCTION: runs FUNCTION unless HOME is complete; two installs at once wait for each other.
once() {
  local home=$1 step=$2 t0; t0=$(now)
  if [ -e "$home/.ready" ]; then say "installed"; return; fi
  mkdir -p "$CACHE"
  exec 9>"$home.lock"
  flock 9
  if [ ! -e "$home/.ready" ]; then
    rm -rf "$home"; mkdir -p "$home"
    "$step" || fail "install failed; nothing is kept of it, run it again"
    touch "$home/.ready"
  fi
  exec 9>&-
  say "installed in $(since "$t0")"
}

# jars POM OUT MAIN_JAR_PREFIX: the POM's runtime dependencies in OUT. Maven checks the checksums (-C); every archive is then opened, as a
# cut-off one has no directory at its end. One Maven at a time: its local repository has no locks of its own.
jars() {
  local pom=$1 out=$2 main=$3 java work; java=$(jdk 17) || return 1
  need mvn maven
  # what killed installs have left behind
  find "$CACHE" -maxdepth 1 -name 'mvn.??????' -mmin +180 -exec rm -rf {} +
  work=$(mktemp -d "$CACHE/mvn.XXXXXX")
  cp "$pom" "$work/pom.xml"
  local attempt ok=
  exec 7>"$CACHE/mvn.lock"
  flock 7
  for attempt in 1 2 3; do
    if (cd "$work" && JAVA_HOME=$java mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
      -DoutputDirectory="$work/lib" -DincludeScope=runtime >"$work/log" 2>&1); then ok=1; break; fi
    tail -5 "$work/log" >&2; say "maven failed (attempt $attempt of 3)"; sleep $((attempt * 2))
  done
  exec 7>&-
  [ -n "$ok" ] || return 1
  compgen -G "$work/lib/$main*.jar" >/dev/null || { say "$main is not among the jars"; return 1; }
  python3 - "$work/lib" <<'PY' || return 1
import sys, zipfile, pathlib
for jar in sorted(pathlib.Path(sys.argv[1]).glob("*.jar")):
    if not zipfile.ZipFile(jar).namelist():
        sys.exit(f"{jar.name} is empty")
PY
  mkdir -p "$(dirname "$out")"
  mv "$work/lib" "$out"
  rm -rf "$work"
}

# A server is its pid and its start time in clock ticks, as a pid alone may by now be somebody else's.
started_at() { awk '{ sub(/^.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }
record_pid() { echo "$2 $(started_at "$2")" >"$RUN/$1/pid"; }
alive() { # name
  local pid at
  [ -s "$RUN/$1/pid" ] || return 1
  read -r pid at <"$RUN/$1/pid" || return 1
  [ -n "$at" ] && [ "$(started_at "$pid")" = "$at" ] && ! grep -q '^State:[[:space:]]Z' "/proc/$pid/status" 2>/dev/null
}

# launch NAME DIR COMMAND...: in the background, in a session of its own, output in $RUN/NAME/out.log
launch() {
  local name=$1 dir=$2; shift 2
  (cd "$dir" && exec setsid nohup "$@" >"$RUN/$name/out.log" 2>&1 </dev/null 7>&- 8>&- 9>&-) &
  # setsid and nohup replace themselves, so this pid is the server's
  record_pid "$name" $!
}
wait_for() { # name seconds command...
  local name=$1 limit=$2 t0 end; shift 2
  t0=$(now); end=$(($(date +%s) + limit))
  until "$@" >/dev/null 2>&1; do
    alive "$name" || { tail -20 "$RUN/$name/out.log" >&2; fail "died while starting; its output is in $RUN/$name/out.log"; }
    [ "$(date +%s)" -lt "$end" ] || { tail -20 "$RUN/$name/out.log" >&2; fail "not ready after $limit s; its output is in $RUN/$name/out.log"; }
    sleep 0.25
  done
  say "ready in $(since "$t0")"
}
stop_server() { # name [signal]
  local pid at
  if alive "$1"; then
    read -r pid at <"$RUN/$1/pid"
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    for _ in $(seq 40); do alive "$1" || break; sleep 0.25; done
    if alive "$1"; then kill -KILL "$pid" 2>/dev/null || true; fi
    say "stopped"
  fi
  rm -f "$RUN/$1/pid"
}
status_of() {
  local pid at
  if alive "$1"; then
    read -r pid at <"$RUN/$1/pid"
    awk -v n="$1" -v p="$pid" '/VmRSS/ { printf "%-9s running  pid %-8s %d MiB\n", n, p, $2 / 1024 }' "/proc/$pid/status"
  else
    printf '%-9s stopped\n' "$1"
  fi
}

# main: each server script defines install_it and start_it (and stop_it where TERM is not the way) and ends with: main "$@"
main() {
  case ${1:-} in
    install) install_it ;;
    start)
      if alive "$NAME"; then say "already running"; return; fi
      install_it; remember; mkdir -p "$RUN/$NAME"; start_it ;;
    stop) if declare -F stop_it >/dev/null; then stop_it; else stop_server "$NAME"; fi ;;
    status) status_of "$NAME" ;;
    *) if declare -F more >/dev/null; then more "$@"; else echo "usage: $0 install|start|stop|status" >&2; exit 2; fi ;;
  esac
}
