#!/bin/bash
# versitygw 1.8.0: an S3 server over a local folder, with conditional writes. One bucket, "lake". Besides the owner it has the accounts
# loan-1 to loan-9 with the owner's secret, for catalogs that lend credentials: it knows no session tokens.
# s3.sh install|start|stop|status
NAME=s3
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
VERSION=v1.8.0
HOME_DIR=$CACHE/versitygw-$VERSION

fetch() {
  need go golang
  go version | awk '{ split(substr($3, 3), v, "."); exit !(v[1] > 1 || v[2] >= 21) }' ||
    fail "Go 1.21 or newer is needed (it fetches the 1.25 that versitygw asks for by itself): install it from go.dev"
  # Go's own caches stay in the home folder: what is kept is one binary
  GOBIN=$HOME_DIR/bin go install "github.com/versity/versitygw/cmd/versitygw@$VERSION"
}
install_it() { once "$HOME_DIR" fetch; }

start_it() {
  mkdir -p "$RUN/s3/data/$S3_BUCKET" "$RUN/s3/versions" "$RUN/s3/iam"
  launch s3 "$RUN/s3" "$HOME_DIR/bin/versitygw" --access "$S3_KEY" --secret "$S3_SECRET" --region us-east-1 \
    --port "127.0.0.1:$S3_PORT" --health /health --iam-dir "$RUN/s3/iam" posix --versioning-dir "$RUN/s3/versions" "$RUN/s3/data"
  wait_for s3 30 curl -sf "http://127.0.0.1:$S3_PORT/health"
  local loan
  for loan in loan-{1..9}; do
    grep -qs "\"$loan\"" "$RUN/s3/iam/users.json" ||
      "$HOME_DIR/bin/versitygw" admin --access "$S3_KEY" --secret "$S3_SECRET" --endpoint-url "http://127.0.0.1:$S3_PORT" \
        create-user --access "$loan" --secret "$S3_SECRET" --role admin >/dev/null || fail "account $loan was not made"
  done
}
main "$@"
