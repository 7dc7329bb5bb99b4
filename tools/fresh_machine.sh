#!/bin/sh
# Tries the README on a bare Debian, in a folder, and prints how long each step took.
#
#   sudo tools/fresh_machine.sh bookworm [--check] [--test]
#
# Makes a root of the release with debootstrap, installs what the README names, clones this
# repository, and as an ordinary user runs `make run`, a search and `make run` again; with --check
# also `make check`, with --test also `make test`. Nothing of this machine is used but its kernel,
# its package mirror and its certificate authorities. Not for continuous integration: it takes
# 10 to 40 minutes, root rights and 8 GB in $FRESH_DIR (by default /var/tmp/image-search-fresh).
set -eu

release=${1:?"name a release of Debian: bookworm (12) or trixie (13)"}
shift
root=${FRESH_DIR:-/var/tmp/image-search-fresh}/$release
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
bundle=/etc/ssl/certs/ca-certificates.crt
named="git make python3 python3-venv" # what the README names for every Debian
[ "$release" = bookworm ] && named="$named libpython3.11"

[ "$(id -u)" = 0 ] || { echo "this needs root rights" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "install debootstrap" >&2; exit 1; }
if [ -z "${IN_NAMESPACE:-}" ]; then
  # Its own mounts and processes, all of which are gone when this ends.
  IN_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child "$0" "$release" "$@"
fi

now() { date +%s.%N; }
took() { printf '%-44s %7.1f s\n' "$1" "$(echo "$2 $(now)" | awk '{print $2 - $1}')"; }

if [ ! -e "$root/.complete" ]; then
  rm -rf "$root"
  mkdir -p "$root"
  mirror=$(sed -n 's/^URIs: *//p; s/^deb [^ ]*\(http[^ ]*\).*/\1/p' /etc/apt/sources.list \
    /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -1)
  debootstrap --variant=minbase --include=ca-certificates "$release" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -5 "$root.log"; exit 1; }
  touch "$root/.complete"
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$bundle" "$root$bundle"

# A clean environment: what a login has, and the network's own certificate authority.
inside() {
  user=$1
  shift
  home=/home/user
  [ "$user" = 0 ] && home=/root
  env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="$home" LANG=C.UTF-8 \
    SSL_CERT_FILE=$bundle DEBIAN_FRONTEND=noninteractive \
    chroot --userspec="$user:$user" "$root" /bin/sh -c "cd \$HOME && $*"
}

chroot "$root" id user >/dev/null 2>&1 || chroot "$root" useradd -u 1000 -m user
echo "$(. "$root/etc/os-release" && echo "$PRETTY_NAME"), $(nproc) cores"
inside 0 "apt-get -qq update && apt-get -qq install -y --no-install-recommends $named" >"$root.log" 2>&1 ||
  { tail -5 "$root.log"; exit 1; }
echo "installed: $named"
rm -rf "$root/home/user/image-search" "$root/home/user/.cache"
git -c safe.directory="$repository" -C "$repository" bundle create -q "$root/home/user/repository" HEAD
inside 1000 "git clone -q repository image-search 2>/dev/null"

# Runs `make run` until it is ready; leaves it running in the background.
run() {
  begun=$(now)
  inside 1000 "cd image-search && exec make run" >"$root.run" 2>&1 &
  running=$!
  while ! grep -q ' ready: ' "$root.run"; do
    if ! kill -0 $running 2>/dev/null; then
      cat "$root.run"
      took "$1: ended with the message above" "$begun"
      exit 1
    fi
    sleep 0.1
  done
  took "$1" "$begun"
}
stop() {
  inside 1000 "cd image-search && make down" >/dev/null 2>&1
  wait $running 2>/dev/null || true
}

run "make run, the first one, until ready"
grep -E ' (prepared|ready|model)' "$root.run" | cut -c10- | sed 's/^/  /'
begun=$(now)
inside 1000 "cd image-search && ./image-search search tennis --limit 3"
took "a search from the terminal" "$begun"
stop
run "make run, the second one, until ready"
begun=$(now)
inside 1000 "cd image-search && ./image-search status"
took "status" "$begun"
stop
inside 1000 "du -sh image-search/.venv .cache/image-search image-search/.stack"
for option; do
  begun=$(now)
  case $option in
    --check) inside 1000 "cd image-search && make check" >"$root.check" 2>&1 && result=passed || result=failed
      tail -2 "$root.check"; took "make check: $result" "$begun" ;;
    --test) inside 0 "cd /home/user/image-search && sh tools/test_programs.sh" >"$root.log" 2>&1
      inside 1000 "cd image-search && make test" >"$root.test" 2>&1 && result=passed || result=failed
      tail -2 "$root.test"; took "make test: $result" "$begun" ;;
    *) echo "unknown option: $option" >&2; exit 2 ;;
  esac
done
