#!/bin/bash
# Trino 483 with the Iceberg connector, put together from Maven jars (the server archive on Maven Central stops at 476, which knows no v3).
# Catalogs: sqlite and postgres (Iceberg's JDBC catalogs named "lake"), rest, and sqlite_no_page_index: sqlite, read without page indexes. More at run time: CREATE CATALOG … USING iceberg WITH (…).
# trino.sh install|start|stop|status
NAME=trino
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
VERSION=483
HOME_DIR=$(home_of trino-$VERSION "$HERE"/recipes/trino-*.xml "$HERE/java/TrinoMain.java")

fetch() {
  local java; java=$(jdk 25) || return 1
  jars "$HERE/recipes/trino-server.xml" "$HOME_DIR/lib" trino-main || return 1
  jars "$HERE/recipes/trino-iceberg.xml" "$HOME_DIR/plugin/iceberg" trino-iceberg || return 1
  # a plugin folder is its jars and one more that names the Plugin class
  mkdir -p "$HOME_DIR/service/META-INF/services"
  echo io.trino.plugin.iceberg.IcebergPlugin >"$HOME_DIR/service/META-INF/services/io.trino.spi.Plugin"
  "$java/bin/jar" cf "$HOME_DIR/plugin/iceberg/services.jar" -C "$HOME_DIR/service" META-INF || return 1
  "$java/bin/javac" -cp "$HOME_DIR/lib/*" -d "$HOME_DIR/classes" "$HERE/java/TrinoMain.java"
}
install_it() { jdk 25 >/dev/null; once "$HOME_DIR" fetch; }

# local.location=/ makes file:///a/b, file:/a/b and local:///a/b all mean /a/b; s3:// is the server of s3.sh, which may be stopped
catalog() { # name type, then its own lines on stdin
  { echo connector.name=iceberg; echo "iceberg.catalog.type=$2"; cat
    printf '%s\n' iceberg.register-table-procedure.enabled=true iceberg.add-files-procedure.enabled=true fs.local.enabled=true local.location=/ \
      fs.s3.enabled=true s3.endpoint="http://127.0.0.1:$S3_PORT" s3.region=us-east-1 s3.path-style-access=true \
      s3.aws-access-key="$S3_KEY" s3.aws-secret-key="$S3_SECRET"
  } >"$RUN/trino/etc/catalog/$1.properties"
}
configure() {
  mkdir -p "$RUN/trino/etc/catalog" "$WAREHOUSE/sqlite" "$WAREHOUSE/postgres"
  # catalogs are read from etc/catalog in the folder Trino runs in, and CREATE CATALOG writes there
  cat >"$RUN/trino/etc/config.properties" <<P
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port=$TRINO_PORT
discovery.uri=http://127.0.0.1:$TRINO_PORT
node.environment=firn
node.id=firn-1
node.bind-ip=127.0.0.1
node.internal-address=127.0.0.1
plugin.dir=$HOME_DIR/plugin
catalog.management=dynamic
catalog.store=file
query.max-memory=400MB
query.max-memory-per-node=400MB
memory.heap-headroom-per-node=200MB
web-ui.enabled=false
P
  # Trino checks for the JDBC catalog's tables and never makes them
  python3 - "$WAREHOUSE/sqlite/catalog.db" "$HERE/catalog.sql" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
db.execute("pragma journal_mode=wal")
db.executescript(open(sys.argv[2]).read())
PY
  local name
  for name in sqlite sqlite_no_page_index; do
    catalog $name jdbc <<P
iceberg.jdbc-catalog.catalog-name=lake
iceberg.jdbc-catalog.driver-class=org.sqlite.JDBC
iceberg.jdbc-catalog.connection-url=jdbc:sqlite:$WAREHOUSE/sqlite/catalog.db
iceberg.jdbc-catalog.default-warehouse-dir=file://$WAREHOUSE/sqlite
$([ $name = sqlite ] || echo parquet.use-column-index=false)
P
  done
  catalog rest rest <<P
iceberg.rest-catalog.uri=http://127.0.0.1:$REST_PORT
P
  if alive postgres; then
    catalog postgres jdbc <<P
iceberg.jdbc-catalog.catalog-name=lake
iceberg.jdbc-catalog.driver-class=org.postgresql.Driver
iceberg.jdbc-catalog.connection-url=jdbc:postgresql://127.0.0.1:$POSTGRES_PORT/iceberg
iceberg.jdbc-catalog.connection-user=firn
iceberg.jdbc-catalog.connection-password=firn
iceberg.jdbc-catalog.default-warehouse-dir=file://$WAREHOUSE/postgres
P
  else
    # its catalog would fail every query, as the tables are looked for
    rm -f "$RUN/trino/etc/catalog/postgres.properties"
  fi
}

start_it() {
  local java; java=$(jdk 25)/bin/java
  configure
  launch trino "$RUN/trino" "$java" -Xmx1200m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djdk.attach.allowAttachSelf=true -Dfile.encoding=UTF-8 \
    --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow --add-modules=jdk.incubator.vector \
    -Dconfig="$RUN/trino/etc/config.properties" -Dtrino.version=$VERSION -cp "$HOME_DIR/classes:$HOME_DIR/lib/*" TrinoMain
  wait_for trino 300 sh -c "curl -sf http://127.0.0.1:$TRINO_PORT/v1/info | grep -q '\"starting\":false'"
}
main "$@"
