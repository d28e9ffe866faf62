#!/bin/bash
# A Python environment with pyiceberg, for tests that read tables with an engine that is not ours. Nothing runs in the background.
# python.sh install|start|stop|status|home
NAME=python
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
HOME_DIR=$(home_of python "$HERE/recipes/requirements.txt")

fetch() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python 3.10 or newer is needed"
  python3 -m venv "$HOME_DIR" || { apt_install python3-venv; python3 -m venv "$HOME_DIR" || return 1; }
  "$HOME_DIR/bin/pip" install -q --disable-pip-version-check -r "$HERE/recipes/requirements.txt" || return 1
  "$HOME_DIR/bin/python" -c 'import pyiceberg.catalog.sql, pyiceberg.catalog.rest, pyarrow.parquet, psycopg2'
}
install_it() { once "$HOME_DIR" fetch; }
case ${1:-} in
  install | start) install_it ;;
  stop) ;;
  status) if [ -e "$HOME_DIR/.ready" ]; then echo "python    installed"; else echo "python    absent"; fi ;;
  home) echo "$HOME_DIR" ;;
  *) echo "usage: $0 install|start|stop|status|home" >&2; exit 2 ;;
esac
