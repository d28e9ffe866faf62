#!/bin/bash
# Spark 3.5.6 with Iceberg 1.10.1 and Delta 3.3.2, for the long mode of the interop tests: one local process for each call, nothing runs in the background.
# Catalogs: lake (what Trino calls sqlite, or postgres with FIRN_SPARK_LAKE=postgres) and rest; Delta tables are delta.`/FOLDER`. The rows of the last statement are printed
# as JSON lines.
# spark.sh install|start|stop|status|home|sql STATEMENT...
NAME=spark
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
HOME_DIR=$(home_of spark-3.5.6 "$HERE/recipes/spark.xml" "$HERE/recipes/spark-requirements.txt")

fetch() {
  python3 -m venv "$HOME_DIR" || { apt_install python3-venv; python3 -m venv "$HOME_DIR" || return 1; }
  "$HOME_DIR/bin/pip" install -q --disable-pip-version-check -r "$HERE/recipes/spark-requirements.txt" || return 1
  jars "$HERE/recipes/spark.xml" "$HOME_DIR/jars" iceberg-spark-runtime
}
install_it() { once "$HOME_DIR" fetch; }
run_sql() {
  # Spark 3.5 knows Java 17 at most
  local java jars; java=$(jdk 17)
  jars=$(printf '%s,' "$HOME_DIR"/jars/*.jar)
  mkdir -p "$RUN/spark"
  cd "$RUN/spark"
  JAVA_HOME=$java SPARK_LOCAL_IP=127.0.0.1 FIRN_SPARK_JARS=${jars%,} FIRN_WAREHOUSE=$WAREHOUSE \
    FIRN_REST=http://127.0.0.1:$REST_PORT FIRN_POSTGRES=127.0.0.1:$POSTGRES_PORT "$HOME_DIR/bin/python" "$HERE/spark_sql.py" "$@"
}
case ${1:-} in
  install | start) install_it ;;
  stop) ;;
  status) if [ -e "$HOME_DIR/.ready" ]; then echo "spark     installed"; else echo "spark     absent"; fi ;;
  home) echo "$HOME_DIR" ;;
  sql) shift; run_sql "$@" ;;
  *) echo "usage: $0 install|start|stop|status|home|sql STATEMENT..." >&2; exit 2 ;;
esac
