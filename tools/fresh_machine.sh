#!/bin/sh
# Tries the README on a bare Debian, in a folder, and prints how long each step took.
#
#   sudo tools/fresh_machine.sh bookworm [--check] [--test] [--image]
#
# Makes a root of the release with debootstrap, installs what the README names, clones this
# repository, and as an ordinary user runs `make run`, a search and `make run` again. Besides:
#   --check   make check
#   --test    make test, after what it needs besides
#   --image   the steps of deploy/app.Dockerfile in a root of their own, and each of its programs
#             there as its user, with a read-only root, against servers that the first root started
# Nothing of this machine is used but its kernel, its package mirror and its certificate
# authorities. Not for continuous integration: it takes 10 to 40 minutes, root rights and 8 GB in
# $FRESH_DIR (by default /var/tmp/image-search-fresh).
set -eu

release=${1:?"name a release of Debian: bookworm (12) or trixie (13)"}
shift
folder=${FRESH_DIR:-/var/tmp/image-search-fresh}
root=$folder/$release
image=$folder/image
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
bundle=/etc/ssl/certs/ca-certificates.crt
named="git make python3 python3-venv" # what the README names for every Debian
[ "$release" = bookworm ] && named="$named libpython3.11"

[ "$(id -u)" = 0 ] || { echo "this needs root rights" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "install debootstrap" >&2; exit 1; }
if [ -z "${IN_NAMESPACE:-}" ]; then
  # Its own mounts and processes, all of which are gone when this ends.
  IN_NAMESPACE=1 exec unshare --mount --pid --mount-proc --fork --kill-child "$0" "$release" "$@"
fi

now() { date +%s.%N; }
took() { printf '%-52s %7.1f s\n' "$1" "$(echo "$2 $(now)" | awk '{print $2 - $1}')"; }
failed() { tail -5 "$1"; exit 1; }

# bare NAME RELEASE PACKAGES: the root NAME, with these packages and nothing else.
bare() {
  bare=$folder/$1
  if [ ! -e "$bare/.complete" ]; then
    rm -rf "$bare"
    mkdir -p "$bare"
    mirror=$(sed -n 's/^URIs: *//p; s/^deb [^ ]*\(http[^ ]*\).*/\1/p' /etc/apt/sources.list \
      /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -1)
    debootstrap --variant=minbase --include=ca-certificates "$2" "$bare" "$mirror" >"$bare.log" 2>&1 ||
      failed "$bare.log"
    touch "$bare/.complete"
  fi
  cp /etc/resolv.conf "$bare/etc/resolv.conf"
  cp "$bundle" "$bare$bundle"
  inside "$bare" 0 "apt-get -qq update && apt-get -qq install -y --no-install-recommends $3" \
    >"$bare.log" 2>&1 || failed "$bare.log"
}

# inside ROOT USER COMMAND: with what a login has, and the network's own certificate authority.
inside() {
  there=$1 user=$2
  shift 2
  home=/home/user
  [ "$user" = 0 ] && home=/root
  env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="$home" LANG=C.UTF-8 \
    SSL_CERT_FILE=$bundle DEBIAN_FRONTEND=noninteractive \
    chroot --userspec="$user:$user" "$there" /bin/sh -c "cd \$HOME && $*"
}
ours() { inside "$root" 1000 "cd image-search && $*"; }

mounts() {
  mount -t proc proc "$1/proc"
  mount --rbind /dev "$1/dev"
  mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
}

bare "$release" "$release" "$named"
mounts "$root"
chroot "$root" id user >/dev/null 2>&1 || chroot "$root" useradd -u 1000 -m user
echo "$(. "$root/etc/os-release" && echo "$PRETTY_NAME"), $(nproc) cores; installed: $named"
rm -rf "$root/home/user/image-search" "$root/home/user/.cache"
git -c safe.directory="$repository" -C "$repository" bundle create -q "$root/home/user/repository" HEAD
inside "$root" 1000 "git clone -q repository image-search 2>/dev/null"

# Runs `make run` until it is ready; leaves it running in the background.
run() {
  begun=$(now)
  ours "exec make run" >"$root.run" 2>&1 &
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
  ours "make down" >/dev/null 2>&1
  wait $running 2>/dev/null || true
}

run "make run, the first one, until ready"
grep -E ' (prepared|ready|model)' "$root.run" | cut -c10- | sed 's/^/  /'
begun=$(now)
until ours "./image-search search tennis --limit 2" >"$root.search" && grep -q tennis-ball "$root.search"; do
  sleep 0.5
done
took "after it, until the sample pictures are found" "$begun"
cat "$root.search"
stop
run "make run, the second one, until ready"
begun=$(now)
ours "./image-search status"
took "status" "$begun"
stop

run_check() {
  begun=$(now)
  ours "make check" >"$root.check" 2>&1 && result=passed || result=failed
  tail -2 "$root.check"
  took "make check: $result" "$begun"
}
run_tests() {
  begun=$(now)
  inside "$root" 0 "cd /home/user/image-search && sh tools/test_programs.sh" >"$root.log" 2>&1
  ours "make test" >"$root.test" 2>&1 && result=passed || result=failed
  tail -2 "$root.test"
  took "make test: $result" "$begun"
}

# What docker-compose.yml sets, with the addresses of this machine.
settings="IMAGES_DIR=/images LAKE_URL=/lake MODEL_NAME=lite READY_FILE=/tmp/ready \
  STATUS_FILE=/watcher/status.json WATCHER_STATUS_FILE=/watcher/status.json \
  THUMBNAILS_DIR=/tmp/thumbnails METRICS_PORT=9100"

# program NAME COMMAND: one of the image's programs, as docker-compose.yml starts it.
program() {
  name=$1
  shift
  env -i $(python3 -c 'import json, sys
for name, value in json.load(open(sys.argv[1]))["environment"].items(): print(f"{name}={value}")' \
    "$image.env") $settings JWT_SECRET="$(head -c 48 /dev/urandom | base64 -w0)" \
    chroot --userspec=10001:10001 "$image" /bin/sh -c "cd /app && exec $*" >"$image.$name" 2>&1
}

run_image() {
  bare image-base bookworm "python3 python3-venv" # what `FROM python:3.11-slim` has
  ln -sf /usr/bin/python3 "$folder/image-base/usr/local/bin/python"
  rm -rf "$image" "$image.build"
  begun=$(now)
  SSL_CERT_FILE=$bundle PIP_CERT=$bundle python3 "$repository/tools/image_root.py" \
    "$repository/deploy/app.Dockerfile" "$folder/image-base" "$image" >"$image.log" 2>&1 ||
    failed "$image.log"
  took "the steps of deploy/app.Dockerfile" "$begun"
  mkdir "$image/images"
  cp -a "$repository/images/." "$image/images"
  ours "STATE_DIR=/tmp/servers ./image-search up --servers-only --detach" >"$root.log" 2>&1 ||
    failed "$root.log"
  mount --bind "$image" "$image"
  mount -o remount,bind,ro "$image"
  mounts "$image"
  mount -t tmpfs -o mode=1777 tmpfs "$image/tmp"
  for each in lake watcher; do mount -t tmpfs -o uid=10001,gid=10001 tmpfs "$image/$each"; done
  chroot --userspec=10001:10001 "$image" /bin/sh -c "touch /app/x" 2>/dev/null &&
    { echo "the root can be written to"; exit 1; }
  begun=$(now)
  program provision python -m adapters.provision || failed "$image.provision"
  program watcher python -m producers &
  program indexer python -m consumers indexing &
  program analytics python -m consumers analytics &
  program gateway python -m gateway &
  tries=0
  until ours "./image-search search tennis --limit 2" >"$image.search" 2>&1 &&
    grep -q tennis-ball "$image.search" && [ -n "$(find "$image/lake" -name '*.parquet')" ]; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { tail -3 "$image".*; exit 1; }
    sleep 1
  done
  cat "$image.search"
  took "its programs, read-only, until a search is filed" "$begun"
  pids=$(pgrep -u 10001 -f "python -m")
  echo "$pids" | xargs kill -TERM
  for each in $pids; do while kill -0 "$each" 2>/dev/null; do sleep 0.1; done; done
  logs=$(cd "$folder" && cat image.provision image.watcher image.indexer image.analytics image.gateway)
  echo "stopped; errors logged: $(echo "$logs" | grep -cE ' (ERROR|CRITICAL) |Traceback' || true)"
  ours "STATE_DIR=/tmp/servers ./image-search down" >/dev/null
}

for option; do
  case $option in
    --check) run_check ;;
    --test) run_tests ;;
    --image) run_image ;;
    *) echo "unknown option: $option" >&2; exit 2 ;;
  esac
done
ours "./image-search clean" # what is installed, and its sizes
