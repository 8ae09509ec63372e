#!/bin/sh
# What make test-edge uses besides Python packages: a browser, Redis, wrk for the load, and Compose. Debian's and Ubuntu's
# names; elsewhere install these commands yourself, and nothing is done here.
set -eu
missing=
# Without a Chinese font the page's pictures would have boxes.
[ -e /usr/share/fonts/truetype/droid ] || missing="$missing fonts-droid-fallback"
for pair in chromium:chromium redis-server:redis-server wrk:wrk; do
    command -v "${pair%%:*}" > /dev/null || missing="$missing ${pair##*:}"
done
docker compose version > /dev/null 2>&1 || command -v docker-compose > /dev/null || missing="$missing docker-compose"
[ -z "$missing" ] && exit 0
command -v apt-get > /dev/null || { echo "install these first:$missing" >&2; exit 1; }
root=
[ "$(id -u)" = 0 ] || root="sudo -n"
$root apt-get update -qq
# shellcheck disable=SC2086 # words on purpose
DEBIAN_FRONTEND=noninteractive $root apt-get install -qq --no-install-recommends $missing > /dev/null
