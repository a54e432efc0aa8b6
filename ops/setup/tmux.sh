#!/usr/bin/env bash
# tmux.sh    makes sure that there is tmux, a terminal that tests can type into and
# look at. Otherwise one line names the command to run, exit 2.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

if command -v tmux >/dev/null; then exit 0; fi
may_install || stop "tmux is missing; run as root: apt-get install -y tmux"
install tmux
