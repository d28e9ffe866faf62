#!/bin/bash
# fake-gcs-server 1.56.1: Google Cloud Storage in memory, with the one request in front of it that it lacks. One bucket, "lake".
# gcs.sh install|start|stop|status
NAME=gcs
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
HOME_DIR=$(home_of fake-gcs-server-1.56.1 "$HERE/recipes/gcs/main.go" "$HERE/recipes/gcs/go.mod" "$HERE/recipes/gcs/go.sum")

fetch() {
  need go golang
  go version | awk '{ split(substr($3, 3), v, "."); exit !(v[1] > 1 || v[2] >= 21) }' ||
    fail "Go 1.21 or newer is needed (it fetches what fake-gcs-server asks for by itself): install it from go.dev"
  (cd "$HERE/recipes/gcs" && go build -mod=readonly -o "$HOME_DIR/gcs" .)
}
install_it() { once "$HOME_DIR" fetch; }

start_it() {
  launch gcs "$RUN/gcs" "$HOME_DIR/gcs" -listen "127.0.0.1:$GCS_PORT" -bucket lake
  wait_for gcs 30 curl -sf "http://127.0.0.1:$GCS_PORT/storage/v1/b/lake"
}
main "$@"
