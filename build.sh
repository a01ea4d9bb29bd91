#!/usr/bin/env bash
# The one entry to building, running and testing Knitter. `./build.sh help` lists the words.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$PWD
venv=$root/_output/venv
bin=$root/_output/bin
python=$venv/bin/python

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

# Debian packages that a word needs and this machine lacks: apt_need COMMAND PACKAGE …
apt_need() {
  local missing=()
  while [ $# -gt 1 ]; do command -v "$1" >/dev/null 2>&1 || [ -x "$1" ] || missing+=("$2"); shift 2; done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ] || { say "not here, and no apt-get as root: ${missing[*]}"; return 1; }
  say "installing ${missing[*]}"
  { [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -print -quit 2>/dev/null)" ] || apt-get update -qq; } &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    # the interpreter itself, not a version manager's shim: the plugin's start-up time is its own
    "$candidate" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys._base_executable)' 2>/dev/null && return 0
  done
  return 1
}

cmd_setup() {
  local stamp=$root/_output/setup.stamp
  if [ -e "$stamp" ] && [ -x "$python" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt deploy/constraints.txt ]; then return 0; fi
  local base; base=$(find_python) || die "Python 3.11 or newer is needed"
  mkdir -p _output
  if [ ! -x "$python" ]; then
    "$base" -c 'import ensurepip, venv' 2>/dev/null || apt_need /nonexistent python3-venv || die "the venv module is needed: apt-get install python3-venv"
    "$base" -m venv "$venv"
  fi
  say "installing the pinned packages into _output/venv"
  "$python" -m pip install -q --disable-pip-version-check -c deploy/constraints.txt \
    "$(sed -n 's/^requires = \["\(hatchling[^"]*\)".*/\1/p' pyproject.toml)" \
    $("$python" -c 'import tomllib;print(*tomllib.load(open("pyproject.toml","rb"))["dependency-groups"]["dev"])')
  "$python" -m pip install -q --disable-pip-version-check --no-build-isolation -c deploy/constraints.txt -e .
  touch "$stamp"
}

cmd_stubs() { [ -e _output/stubs/knitter/v1/agent_pb2.py ] && [ -z "$(find protos -newer _output/stubs/knitter/v1/agent_pb2.py -name '*.proto')" ] || "$python" deploy/build_stubs.py; }

cmd_build() {
  cmd_setup; cmd_stubs
  mkdir -p "$bin"
  local name
  for name in knitter-manager knitter-monitor knitter-agent knitterctl; do ln -sfn "$venv/bin/$name" "$bin/$name"; done
  [ ! -e knitter_cni/plugin.py ] || "$python" deploy/install_plugin.py "$bin/knitter-cni"
}

case "${1:-help}" in
  setup) cmd_setup ;;
  build) cmd_build ;;
  *) die "not built yet: $1" ;;
esac
