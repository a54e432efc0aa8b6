#!/usr/bin/env bash
# chromium.sh    makes sure that there is Chromium, in which the tests of the
# dashboard look at it. Otherwise one line names the command to run, exit 2.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

if command -v chromium >/dev/null || command -v google-chrome >/dev/null; then exit 0; fi
may_install || stop "Chromium is missing; run as root: apt-get install -y chromium"
install chromium fonts-dejavu-core
