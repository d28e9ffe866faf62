#!/bin/bash
# Azurite 3.35.0: Azure's blob service over a local folder, with its well-known account and key. One container, "lake".
# azure.sh install|start|stop|status|account|key
NAME=azure
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
VERSION=3.35.0
HOME_DIR=$CACHE/azurite-$VERSION
# Documented by Microsoft and built into Azurite: no secret.
ACCOUNT=devstoreaccount1
KEY=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==

fetch() {
  need npm npm
  npm install --silent --no-audit --no-fund --prefix "$HOME_DIR" "azurite@$VERSION"
}
install_it() { once "$HOME_DIR" fetch; }

# A container is made by a signed request, for which the standard library is enough.
make_container() {
  python3 - "http://127.0.0.1:$AZURE_PORT" "$ACCOUNT" "$KEY" lake <<'PY'
import base64, hashlib, hmac, sys, urllib.error, urllib.request
from email.utils import formatdate

server, account, key, container = sys.argv[1:]
date, version = formatdate(usegmt=True), "2021-08-06"
headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
to_sign = "PUT" + "\n" * 12 + headers + f"/{account}/{account}/{container}\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), to_sign.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(
    f"{server}/{account}/{container}?restype=container", method="PUT",
    headers={"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {account}:{signature}"})
try:
    urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    if error.code != 409:
        sys.exit(error.read().decode())
PY
}

start_it() {
  mkdir -p "$RUN/azure/data"
  launch azure "$RUN/azure" node "$HOME_DIR/node_modules/azurite/dist/src/blob/main.js" --blobHost 127.0.0.1 --blobPort "$AZURE_PORT" \
    --location "$RUN/azure/data" --silent --disableTelemetry --skipApiVersionCheck
  wait_for azure 30 make_container
}
more() {
  case ${1:-} in
    account) echo "$ACCOUNT" ;;
    key) echo "$KEY" ;;
    *) echo "usage: $0 install|start|stop|status|account|key" >&2; exit 2 ;;
  esac
}
main "$@"
