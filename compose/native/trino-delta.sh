#!/bin/bash
# Trino 476 with the Delta Lake connector: the last server archive on Maven Central, which has a Delta connector to be had nowhere else.
# Its catalog is "delta", on the bucket of s3.sh; its metastore is a folder. Trino writes Delta tables on object stores only.
# trino-delta.sh install|start|stop|status
NAME=trino-delta
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
VERSION=476
HOME_DIR=$CACHE/trino-delta-$VERSION

fetch() {
  local java work; java=$(jdk 17) || return 1
  need mvn maven
  work=$(mktemp -d "$CACHE/mvn.XXXXXX")
  exec 7>"$CACHE/mvn.lock"
  flock 7
  # a local repository of its own, thrown away: the archive would otherwise be kept twice
  (cd "$work" && JAVA_HOME=$java mvn -q -B -C -Dmaven.repo.local="$work/repository" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
    -Dartifact="io.trino:trino-server:$VERSION:tar.gz" -DoutputDirectory="$work") || return 1
  exec 7>&-
  # the archive links jars between plugins, so all of it is unpacked before what is not needed goes
  tar xzf "$work/trino-server-$VERSION.tar.gz" -C "$HOME_DIR" --strip-components=1 --exclude='*/bin/*' || return 1
  rm -rf "$work"
  local plugin
  for plugin in "$HOME_DIR"/plugin/*; do [ "$(basename "$plugin")" = delta-lake ] || rm -rf "$plugin"; done
  [ -d "$HOME_DIR/plugin/delta-lake" ]
}
install_it() { jdk 25 >/dev/null; once "$HOME_DIR" fetch; }

configure() {
  mkdir -p "$RUN/trino-delta/etc/catalog" "$RUN/trino-delta/metastore"
  cat >"$RUN/trino-delta/etc/config.properties" <<P
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port=$TRINO_DELTA_PORT
discovery.uri=http://127.0.0.1:$TRINO_DELTA_PORT
node.environment=firn
node.id=firn-delta-1
node.bind-ip=127.0.0.1
node.internal-address=127.0.0.1
plugin.dir=$HOME_DIR/plugin
catalog.management=static
query.max-memory=300MB
query.max-memory-per-node=300MB
memory.heap-headroom-per-node=200MB
web-ui.enabled=false
P
  cat >"$RUN/trino-delta/etc/catalog/delta.properties" <<P
connector.name=delta_lake
hive.metastore=file
hive.metastore.catalog.dir=file://$RUN/trino-delta/metastore
hive.metastore.disable-location-checks=true
delta.register-table-procedure.enabled=true
# what others commit is to be seen by the next query
delta.metadata.cache-ttl=0s
fs.native-local.enabled=true
local.location=/
fs.native-s3.enabled=true
s3.endpoint=http://127.0.0.1:$S3_PORT
s3.region=us-east-1
s3.path-style-access=true
s3.aws-access-key=$S3_KEY
s3.aws-secret-key=$S3_SECRET
P
}

start_it() {
  local java; java=$(jdk 25)/bin/java
  configure
  launch trino-delta "$RUN/trino-delta" "$java" -Xmx1000m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djdk.attach.allowAttachSelf=true \
    -Dfile.encoding=UTF-8 --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow --add-modules=jdk.incubator.vector \
    -Dconfig="$RUN/trino-delta/etc/config.properties" -cp "$HOME_DIR/lib/*" io.trino.server.TrinoServer
  wait_for trino-delta 300 sh -c "curl -sf http://127.0.0.1:$TRINO_DELTA_PORT/v1/info | grep -q '\"starting\":false'"
}
main "$@"
