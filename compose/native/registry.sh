#!/bin/bash
# Apicurio Registry 3.3.3: a schema registry with Confluent's REST API at /apis/ccompat/v7, in memory.
# registry.sh install|start|stop|status
NAME=registry
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
VERSION=3.3.3
HOME_DIR=$CACHE/apicurio-$VERSION

fetch() {
  local java work; java=$(jdk 17) || return 1
  need mvn maven
  work=$(mktemp -d "$CACHE/mvn.XXXXXX")
  exec 7>"$CACHE/mvn.lock"
  flock 7
  (cd "$work" && JAVA_HOME=$java mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
    -Dartifact="io.apicurio:apicurio-registry-app:$VERSION:tar.gz:all" -DoutputDirectory="$work") || return 1
  exec 7>&-
  # gzip's own checksum at the end of the stream is what shows that the archive is whole
  tar xzf "$work"/apicurio-registry-app-*.tar.gz -C "$HOME_DIR" || return 1
  rm -rf "$work"
  [ -e "$HOME_DIR/quarkus-run.jar" ]
}
install_it() { once "$HOME_DIR" fetch; }

start_it() {
  local java; java=$(jdk 25)/bin/java
  # needs Java 21; the deletion switches are off by default: without them DELETE on a subject answers 405
  launch registry "$RUN/registry" "$java" -Xmx384m -XX:TieredStopAtLevel=1 \
    -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$REGISTRY_PORT" \
    -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port="$REGISTRY_MANAGEMENT_PORT" \
    -Dapicurio.datasource.url=jdbc:h2:mem:registry \
    -Dapicurio.datasource.jdbc.initial-size=2 -Dapicurio.datasource.jdbc.min-size=2 -Dapicurio.datasource.jdbc.max-size=10 \
    -Dapicurio.rest.deletion.artifact.enabled=true -Dapicurio.rest.deletion.artifact-version.enabled=true \
    -Dapicurio.rest.deletion.group.enabled=true -jar "$HOME_DIR/quarkus-run.jar"
  local api=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
  wait_for registry 180 curl -sf "$api/subjects"
  # Confluent's default, said explicitly here
  curl -sf -o "$RUN/registry/config.json" -X PUT -H 'Content-Type: application/json' "$api/config" -d '{"compatibility":"BACKWARD"}' ||
    fail "could not set the compatibility level"
}
main "$@"
