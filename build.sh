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

# The distribution's interpreter first: built with profiles and in one piece, it makes the daemons a tenth cheaper than one that a
# version manager has compiled. One that can make an environment as it is goes before one that lacks a package for it.
find_python() {
  local able candidate
  for able in "import ensurepip, venv" "pass"; do
    for candidate in "${PYTHON:-}" /usr/bin/python3 python3.11 python3.12 python3.13 python3; do
      [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
      # the interpreter itself, not a version manager's shim: the plugin's start-up time is its own
      "$candidate" -c "import sys; sys.version_info >= (3, 11) or sys.exit(1); $able; print(sys._base_executable)" 2>/dev/null && return 0
    done
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

cmd_stubs() {
  local made=_output/stubs/knitter_etcd/rpc_pb2.py
  [ -e $made ] && [ -z "$(find protos knitter_manager/store/etcd/protos -newer $made -name '*.proto')" ] || "$python" deploy/build_stubs.py
}

cmd_build() {
  cmd_setup; cmd_stubs
  mkdir -p "$bin"
  local name
  for name in knitter-manager knitter-monitor knitter-agent knitterctl; do ln -sfn "$venv/bin/$name" "$bin/$name"; done
  [ ! -e knitter_cni/plugin.py ] || "$python" deploy/install_plugin.py "$bin/knitter-cni"
}

cmd_verify() {
  cmd_build
  "$venv/bin/ruff" check .
  "$venv/bin/ruff" format --check --quiet . || die "not as the formatter has it: _output/venv/bin/ruff format ."
  "$venv/bin/mypy"
  "$venv/bin/mypy" --config-file tests/mypy.ini tests bench
  "$venv/bin/lint-imports"
  "$python" deploy/make_docs.py --check
  cmd_pytest tests/unit "$@"
}

# Debian packages that the real parts of the tests come from; a test without its part skips and says why.
test_packages() {
  apt_need ip iproute2 nft nftables ping iputils-ping etcd etcd-server etcdctl etcd-client containerd containerd runc runc busybox busybox-static \
    /usr/lib/cni/bridge containernetworking-plugins buildah buildah patchelf patchelf || say "some tests will be skipped"
}

# atheris is a tool of the tests alone, and installs where there is a wheel of it; the pinned packages do without.
fuzz_tool() {
  "$python" -c 'import atheris' 2>/dev/null ||
    "$python" -m pip install -q --disable-pip-version-check --only-binary :all: --retries 1 --timeout 10 atheris >/dev/null 2>&1 ||
    { say "atheris cannot be installed here; coverage-guided fuzzing is skipped"; return 1; }
}

cmd_pytest() { "$python" -m pytest "$@"; }

cmd_demo() {
  cmd_build
  # a network namespace of its own is the demo's node: nothing of this machine's network is touched
  exec unshare --net -- "$python" deploy/demo/story.py "$@"
}

usage() {
  cat <<'END'
./build.sh WORD

  setup      the virtual environment in _output/venv, with the pinned packages
  build      stubs and executables: _output/bin/{knitter-manager,knitter-monitor,knitter-agent,knitter-cni,knitterctl}
  all        build and verify
  demo       the main job, told as a story: real sandboxes on real networks
  up         a single-machine stack in the background [--dir D]; prints manager=, monitor=, agent=, conf_dir=, bin_dir=
  down       ends it [--dir D] [--purge]
  verify     lint, types, import layers, pages made from code, unit tests
  test-ut    unit tests (no root)
  test-e2e   with real container runtimes
  test       everything that this machine can run; says what it skips and why
  fuzz       coverage-guided fuzzing of all that reads what others write, [KNITTER_FUZZ_SECONDS=60] each
  bench      benchmarks, as ratios
  images     container images, one per component
  clean      removes _output
END
}

word=${1:-help}
[ $# -eq 0 ] || shift
case "$word" in
  setup) cmd_setup ;;
  build) cmd_build ;;
  all) cmd_verify ;;
  demo) cmd_demo "$@" ;;
  up | down) cmd_build && "$python" deploy/stack.py "$word" "$@" ;;
  verify) cmd_verify "$@" ;;
  test-ut) cmd_build && cmd_pytest tests/unit "$@" ;;
  test-e2e) cmd_build && test_packages && cmd_pytest tests/e2e "$@" ;;
  fuzz) cmd_build && fuzz_tool && KNITTER_FUZZ_SECONDS=${KNITTER_FUZZ_SECONDS:-60} cmd_pytest tests/unit/test_coverage_fuzz.py "$@" ;;
  test) cmd_build; fuzz_tool || true; cmd_verify && test_packages && cmd_pytest tests/functional tests/conformance tests/faults tests/e2e "$@" ;;
  bench) cmd_build && test_packages && "$python" bench/run.py "$@" ;;
  images) cmd_build && deploy/images.sh "$@" ;;
  clean) rm -rf _output ;;
  help | -h | --help) usage ;;
  *) usage >&2; die "unknown word: $word" ;;
esac
