#!/bin/bash
# Iceberg's own REST catalog (the test fixtures of iceberg-open-api 1.11.0) over its JDBC catalog on SQLite. Tables are on the local disk,
# and on the server of s3.sh where their namespace was created with an s3:// location.
# rest.sh install|start|stop|status
NAME=rest
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
SOURCE=$HERE/java/org/apache/iceberg/rest/LoopbackRestServer.java
HOME_DIR=$(home_of iceberg-rest-1.11.0 "$HERE/recipes/rest.xml" "$SOURCE")

fetch() {
  jars "$HERE/recipes/rest.xml" "$HOME_DIR/lib" iceberg-core || return 1
  local java; java=$(jdk 17) || return 1
  "$java/bin/javac" -cp "$HOME_DIR/lib/*" -d "$HOME_DIR/classes" "$SOURCE"
}
install_it() { once "$HOME_DIR" fetch; }

start_it() {
  local java; java=$(jdk 17)/bin/java
  mkdir -p "$WAREHOUSE/rest"
  export CATALOG_URI=jdbc:sqlite:$RUN/rest/catalog.db CATALOG_WAREHOUSE=file://$WAREHOUSE/rest CATALOG_IO__IMPL=org.apache.iceberg.io.ResolvingFileIO
  export CATALOG_S3_ENDPOINT=http://127.0.0.1:$S3_PORT CATALOG_CLIENT_REGION=us-east-1 CATALOG_S3_PATH__STYLE__ACCESS=true
  export CATALOG_S3_ACCESS__KEY__ID=$S3_KEY CATALOG_S3_SECRET__ACCESS__KEY=$S3_SECRET
  launch rest "$RUN/rest" "$java" -Xmx256m -XX:TieredStopAtLevel=1 -Drest.port="$REST_PORT" \
    -cp "$HOME_DIR/classes:$HOME_DIR/lib/*" org.apache.iceberg.rest.LoopbackRestServer
  wait_for rest 90 curl -sf "http://127.0.0.1:$REST_PORT/v1/config"
}
main "$@"
