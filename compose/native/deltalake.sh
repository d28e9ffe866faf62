#!/bin/bash
# A Python environment with deltalake, for tests that read and write Delta tables with an engine that is not ours. Nothing runs in the
# background.
# deltalake.sh install|start|stop|status|home
NAME=deltalake
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
HOME_DIR=$(home_of deltalake "$HERE/recipes/delta-requirements.txt")

fetch() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python 3.10 or newer is needed"
  python3 -m venv "$HOME_DIR" || { apt_install python3-venv; python3 -m venv "$HOME_DIR" || return 1; }
  "$HOME_DIR/bin/pip" install -q --disable-pip-version-check -r "$HERE/recipes/delta-requirements.txt" || return 1
  "$HOME_DIR/bin/python" -c 'import deltalake, pyarrow'
}
case ${1:-} in
  install | start) once "$HOME_DIR" fetch ;;
  stop) ;;
  status) if [ -e "$HOME_DIR/.ready" ]; then echo "deltalake installed"; else echo "deltalake absent"; fi ;;
  home) echo "$HOME_DIR" ;;
  *) echo "usage: $0 install|start|stop|status|home" >&2; exit 2 ;;
esac
