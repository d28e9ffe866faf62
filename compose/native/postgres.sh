#!/bin/bash
# PostgreSQL (the distribution's package) with the database "iceberg" and the tables of Iceberg's JDBC catalog. User and password: firn.
# postgres.sh install|start|stop|status
NAME=postgres
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

programs() { # the newest server's programs
  local d best=
  for d in /usr/lib/postgresql/*/bin /usr/local/pgsql/bin; do [ ! -x "$d/initdb" ] || best=$d; done
  [ -n "$best" ] && echo "$best"
}
install_it() {
  local t0; t0=$(now)
  programs >/dev/null || apt_install postgresql
  programs >/dev/null || fail "no PostgreSQL server found: install the package postgresql"
  say "installed ($(since "$t0"))"
}

# The server refuses to run as root.
as_server() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
sql() { PGPASSWORD=firn "$(programs)/psql" -qAtX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$POSTGRES_PORT" -U firn "$@"; }

start_it() {
  local bin; bin=$(programs)
  if [ "$(id -u)" = 0 ]; then
    chmod o+x "$RUN"; chown postgres "$RUN/postgres"
    as_server test -x "$RUN/postgres" || fail "the user postgres cannot enter $RUN: choose another FIRN_STACK_RUN"
  fi
  if [ ! -e "$RUN/postgres/data/.made" ]; then
    rm -rf "$RUN/postgres/data"
    echo firn >"$RUN/postgres/password"
    [ "$(id -u)" != 0 ] || chown postgres "$RUN/postgres/password"
    as_server "$bin/initdb" -D "$RUN/postgres/data" -A scram-sha-256 -U firn --pwfile="$RUN/postgres/password" --locale=C -E UTF8 --no-sync >"$RUN/postgres/initdb.log" 2>&1 ||
      { cat "$RUN/postgres/initdb.log" >&2; fail "initdb failed"; }
    touch "$RUN/postgres/data/.made"
  fi
  local prefix=()
  [ "$(id -u)" != 0 ] || prefix=(setpriv --reuid=postgres --regid=postgres --init-groups)
  launch postgres "$RUN/postgres" "${prefix[@]}" "$bin/postgres" -D "$RUN/postgres/data" -p "$POSTGRES_PORT" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c shared_buffers=32MB
  wait_for postgres 60 "$bin/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT"
  [ "$(sql -d postgres -c "select count(*) from pg_database where datname = 'iceberg'")" = 1 ] || sql -d postgres -c 'create database iceberg'
  # Trino checks for these tables and never makes them
  PGOPTIONS='-c client_min_messages=warning' sql -d iceberg <"$HERE/catalog.sql"
}
# INT is PostgreSQL's fast shutdown; TERM would wait for clients that keep their connections
stop_it() { stop_server postgres INT; }
main "$@"
