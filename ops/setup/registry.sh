#!/usr/bin/env bash
# registry.sh    makes sure that Debian's docker-registry is there, against which
# the tests of private images run. Otherwise one line names the command to run,
# exit 2.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

if command -v docker-registry >/dev/null; then exit 0; fi
may_install || stop "docker-registry is missing; run as root: apt-get install -y docker-registry"
install docker-registry
