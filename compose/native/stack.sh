#!/bin/bash
# Real servers from package registries, without a container engine, on 127.0.0.1, for the interop tests and for trying Firn out.
# stack.sh install|start|stop|status|env|watch [kafka registry rest postgres trino python s3 trino-delta deltalake azure gcs spark]…   (default: all but spark)
# See common.sh for the variables it takes, README.md for what listens where.
NAME=stack
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ALL=(kafka registry rest postgres s3 trino trino-delta python deltalake azure gcs)
verb=${1:-}
[ $# -gt 0 ] && shift
names=("$@")
[ ${#names[@]} -gt 0 ] || names=("${ALL[@]}")
for name in "${names[@]}"; do
  case $name in kafka | registry | rest | postgres | s3 | trino | trino-delta | python | deltalake | azure | gcs | spark) ;; *) fail "no such part: $name (there are ${ALL[*]} spark)" ;; esac
done
among() { local n; for n in "${names[@]}"; do [ "$n" != "$1" ] || return 0; done; return 1; }

# each VERB NAME...: all at once; fails when one fails
each() {
  local verb=$1 name pids=() bad=0; shift
  for name in "$@"; do "$HERE/$name.sh" "$verb" & pids+=($!); done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" || bad=1; done
  return $bad
}

t0=$(now)
case $verb in
  install) each install "${names[@]}" || fail "install failed"; say "all installed in $(since "$t0")" ;;
  start)
    remember
    # two starts of one run folder at once: the second finds the servers of the first
    exec 6>"$RUN/start.lock"
    flock 6
    first=()
    for name in "${names[@]}"; do [ "$name" = trino ] || first+=("$name"); done
    # Trino looks for the tables of the JDBC catalogs when it starts, so PostgreSQL goes before it; the other Trino waits for nobody
    each start ${first[@]+"${first[@]}"} 6>&- || fail "start failed"
    if among trino; then "$HERE/trino.sh" start 6>&- || fail "start failed"; fi
    say "all started in $(since "$t0"); $0 env prints where" ;;
  stop)
    mkdir -p "$RUN"
    # a start that is under way is waited for, or its servers would outlive this
    exec 6>"$RUN/start.lock"
    flock 6
    each stop "${names[@]}" 6>&- ;;
  watch)
    # For a test process: it holds the other end of our stdin, so that however it ends, its servers end too. $RUN/processes lists
    # what else it started, a pid and a start time on each line.
    cat >/dev/null
    mkdir -p "$RUN"
    exec 6>"$RUN/start.lock"
    flock 6
    if [ -s "$RUN/processes" ]; then
      while read -r pid at; do
        [ -z "$at" ] || [ "$(started_at "$pid")" != "$at" ] || kill -KILL "$pid" 2>/dev/null || true
      done <"$RUN/processes"
    fi
    each stop "${ALL[@]}" 6>&- || true
    rm -rf "$RUN" ;;
  status) for name in "${names[@]}"; do "$HERE/$name.sh" status; done ;;
  env)
    cat <<E
FIRN_STACK_RUN=$RUN
FIRN_WAREHOUSE=$WAREHOUSE
KAFKA=127.0.0.1:$KAFKA_PORT
KAFKA_SASL=127.0.0.1:$KAFKA_SASL_PORT
KAFKA_SSL=127.0.0.1:$KAFKA_SSL_PORT
KAFKA_SASL_SSL=127.0.0.1:$KAFKA_SASL_SSL_PORT
KAFKA_CA=$RUN/kafka/tls/ca.pem
REGISTRY=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
REST=http://127.0.0.1:$REST_PORT
TRINO=http://127.0.0.1:$TRINO_PORT
POSTGRES=postgres://firn:firn@127.0.0.1:$POSTGRES_PORT/iceberg
SQLITE=$WAREHOUSE/sqlite/catalog.db
PYTHON=$("$HERE/python.sh" home)/bin/python
S3=http://127.0.0.1:$S3_PORT
S3_KEY=$S3_KEY
S3_SECRET=$S3_SECRET
S3_BUCKET=$S3_BUCKET
TRINO_DELTA=http://127.0.0.1:$TRINO_DELTA_PORT
AZURE=http://127.0.0.1:$AZURE_PORT/$("$HERE/azure.sh" account)
AZURE_KEY=$("$HERE/azure.sh" key)
GCS=http://127.0.0.1:$GCS_PORT
PYTHON_DELTA=$("$HERE/deltalake.sh" home)/bin/python
E
    ;;
  *) echo "usage: $0 install|start|stop|status|env|watch [${ALL[*]} spark]..." >&2; exit 2 ;;
esac
