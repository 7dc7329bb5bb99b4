#!/bin/sh
# Debian's programs that the tests use and no package index for Python has: installed where they are
# missing and this user may install them. Says so and goes on where not.
set -eu
missing=""
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || missing="chromium"
command -v kcat >/dev/null || missing="$missing kcat"
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
if ! command -v apt-get >/dev/null || { [ -n "$as_root" ] && ! $as_root true 2>/dev/null; }; then
  echo "cannot install: $missing; the tests that use them are skipped (CI=true makes them fail)"
  exit 0
fi
echo "installing for the tests: $missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  $as_root apt-get -q -o DPkg::Lock::Timeout=300 update &&
    $as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing
}
install >"$log" 2>&1 || { tail -n 20 "$log"; exit 1; }
