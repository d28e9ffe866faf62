#!/bin/bash
# Apache Kafka 4.3.1, one broker and controller in KRaft mode, from Maven jars. Listeners: PLAINTEXT, SASL_PLAINTEXT, SSL, SASL_SSL.
# Users: plain/plain-secret (PLAIN), scram/scram-secret (SCRAM-SHA-256 and -512). The CA is $RUN/kafka/tls/ca.pem.
# kafka.sh install|start|stop|status|tool CLASS ARGUMENT...
NAME=kafka
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
HOME_DIR=$(home_of kafka-4.3.1 "$HERE/recipes/kafka.xml")

fetch() { jars "$HERE/recipes/kafka.xml" "$HOME_DIR/lib" kafka_2.13; }
install_it() { need openssl openssl; once "$HOME_DIR" fetch; }

# A CA of this run, and a server certificate for 127.0.0.1 and localhost signed by it.
certificates() {
  local d=$RUN/kafka/tls
  [ -e "$d/server.pem" ] && return
  rm -rf "$d"; mkdir -p "$d"
  printf '%s\n' 'subjectAltName=IP:127.0.0.1,DNS:localhost' 'extendedKeyUsage=serverAuth' >"$d/server.ext"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Firn test CA' -keyout "$d/ca.key" -out "$d/ca.pem" \
      -addext 'keyUsage=critical,keyCertSign,cRLSign'
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=localhost' -keyout "$d/server.key" -out "$d/server.csr"
    openssl x509 -req -in "$d/server.csr" -CA "$d/ca.pem" -CAkey "$d/ca.key" -CAcreateserial -days 3650 -extfile "$d/server.ext" -out "$d/server.crt"
    openssl pkcs8 -topk8 -nocrypt -in "$d/server.key" -out "$d/server.p8"
  } >"$d/openssl.log" 2>&1 || { cat "$d/openssl.log" >&2; return 1; }
  cat "$d/server.p8" "$d/server.crt" "$d/ca.pem" >"$d/server.pem.part" && mv "$d/server.pem.part" "$d/server.pem"
}

configure() {
  local plain='org.apache.kafka.common.security.plain.PlainLoginModule required user_plain="plain-secret";'
  local scram='org.apache.kafka.common.security.scram.ScramLoginModule required;'
  local listener
  cat <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,SASL_PLAINTEXT://127.0.0.1:$KAFKA_SASL_PORT,SSL://127.0.0.1:$KAFKA_SSL_PORT,SASL_SSL://127.0.0.1:$KAFKA_SASL_SSL_PORT,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,SASL_PLAINTEXT://127.0.0.1:$KAFKA_SASL_PORT,SSL://127.0.0.1:$KAFKA_SSL_PORT,SASL_SSL://127.0.0.1:$KAFKA_SASL_SSL_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
ssl.keystore.type=PEM
ssl.keystore.location=$RUN/kafka/tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$RUN/kafka/tls/ca.pem
log.dirs=$RUN/kafka/data
num.partitions=4
# a topic that does not exist is an error, not a new topic
auto.create.topics.enable=${FIRN_KAFKA_AUTO_CREATE:-false}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.hours=-1
log.retention.check.interval.ms=1000
num.network.threads=2
num.io.threads=2
P
  for listener in sasl_plaintext sasl_ssl; do
    echo "listener.name.$listener.plain.sasl.jaas.config=$plain"
    echo "listener.name.$listener.scram-sha-256.sasl.jaas.config=$scram"
    echo "listener.name.$listener.scram-sha-512.sasl.jaas.config=$scram"
  done
}

start_it() {
  local java; java=$(jdk 17)/bin/java
  certificates
  configure >"$RUN/kafka/server.properties"
  if [ ! -e "$RUN/kafka/data/meta.properties" ]; then
    local id; id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)
    "$java" -XX:TieredStopAtLevel=1 -cp "$HOME_DIR/lib/*" kafka.tools.StorageTool format -t "$id" -c "$RUN/kafka/server.properties" \
      --add-scram 'SCRAM-SHA-256=[name=scram,password=scram-secret]' --add-scram 'SCRAM-SHA-512=[name=scram,password=scram-secret]' \
      >"$RUN/kafka/format.log" 2>&1 || { cat "$RUN/kafka/format.log" >&2; fail "the storage could not be formatted"; }
  fi
  launch kafka "$RUN/kafka" "$java" -Xmx512m -XX:+UseG1GC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info -cp "$HOME_DIR/lib/*" kafka.Kafka "$RUN/kafka/server.properties"
  wait_for kafka 120 grep -q 'Kafka Server started' "$RUN/kafka/out.log"
}

# Kafka's own tools, without their shell scripts: tool org.apache.kafka.tools.TopicCommand --list --bootstrap-server …
more() {
  [ "${1:-}" = tool ] || { echo "usage: $0 install|start|stop|status|tool CLASS ARGUMENT..." >&2; exit 2; }
  shift
  local java; java=$(jdk 17)/bin/java
  exec "$java" -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$HOME_DIR/lib/*" "$@"
}
main "$@"
