#!/usr/bin/env bash
# busybox.sh    makes sure that there is a static busybox, from which the images
# for tests and the demo are built without any registry. Otherwise one line
# names the command to run, exit 2.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

# A dynamic one finds no libraries in an image that holds nothing else.
static() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

if static; then exit 0; fi
may_install || stop "A static busybox is missing; run as root: apt-get install -y busybox-static"
install busybox-static
static || stop "/bin/busybox is not a static one; run as root: apt-get install -y busybox-static"
