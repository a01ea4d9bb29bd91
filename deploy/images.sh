#!/usr/bin/env bash
# Container images, one per component, with buildah: deploy/images.sh [--tag TAG] [--base IMAGE] [--archive DIR] [COMPONENT…]
#
# The base is made with debootstrap, so no registry is needed; --base takes any Debian 12 instead. Storage is private
# (_output/images/storage): nothing of this machine's images is touched. --archive writes each image as an OCI archive too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$PWD/_output/images
python=_output/venv/bin/python
suite=bookworm
base=localhost/knitter-base:$suite
mirror=${DEBIAN_MIRROR:-}  # debootstrap knows its own
tag=$("$python" -c 'from knitter_common.version import __version__; print(__version__)')
archive=
components=()

say() { printf '%s\n' "$*" >&2; }
die() { say "images.sh: $*"; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --tag) tag=$2; shift 2 ;;
    --base) base=$2; shift 2 ;;
    --archive) archive=$2; shift 2 ;;
    manager | monitor | agent) components+=("$1"); shift ;;
    *) die "unknown argument: $1" ;;
  esac
done
[ ${#components[@]} -gt 0 ] || components=(manager monitor agent)

need() {
  command -v "$1" >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || die "$1 is needed: apt-get install $1"
  say "installing $1"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null ||
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null; }
}

images() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver "${STORAGE_DRIVER:-overlay}" "$@"; }

make_base() {
  [ "$base" = "localhost/knitter-base:$suite" ] || return 0
  ! images inspect --type image "$base" >/dev/null 2>&1 || return 0
  need debootstrap
  say "making the base, Debian $suite, with debootstrap"
  local root=$work/root container
  rm -rf "$root"
  debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 || die "debootstrap failed: $work/debootstrap.log"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  container=$(images from scratch)
  images add -q "$container" "$root" / >/dev/null
  images config --cmd /bin/sh "$container"
  images commit -q --rm "$container" "$base" >/dev/null
  rm -rf "$root"
}

# What the images are made of: the files under version control, as they are now, and the wheels.
make_context() {
  rm -rf "$work/context"
  mkdir -p "$work/context" "$work/wheels"
  git ls-files -z --cached --others --exclude-standard -- . ':!tests' ':!bench' | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
  done | tar -c --null -T - | tar -x -C "$work/context"
  say "collecting the wheels"
  rm -f "$work"/wheels/knitter-*.whl
  (cd "$work/context" && "$OLDPWD/$python" -m pip wheel -q --no-build-isolation --no-cache-dir --find-links "$work/wheels" -c deploy/constraints.txt -w "$work/wheels" .)
  rm -rf "$work/context/_output" "$work/context/build"
  cp -r "$work/wheels" "$work/context/wheels"
}

need buildah
mkdir -p "$work"
make_base
make_context
for component in "${components[@]}"; do
  say "building knitter-$component:$tag"
  images build -q --isolation chroot --network host --layers --build-arg "BASE=$base" --target "$component" \
    -t "localhost/knitter-$component:$tag" -f "$work/context/Dockerfile" "$work/context" >/dev/null
  if [ -n "$archive" ]; then
    mkdir -p "$archive"
    rm -f "$archive/knitter-$component-$tag.tar"
    images push -q "localhost/knitter-$component:$tag" "oci-archive:$archive/knitter-$component-$tag.tar:localhost/knitter-$component:$tag"
  fi
  printf 'localhost/knitter-%s:%s\n' "$component" "$tag"
done
images rmi --prune >/dev/null 2>&1 || say "older images were not removed from $work/storage"
