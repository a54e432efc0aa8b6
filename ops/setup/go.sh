#!/usr/bin/env bash
# go.sh [race]    makes sure that this machine can build ECS: Linux, a Go that is
# new enough, the modules and, for `race`, a C compiler. Otherwise one line says
# what is missing and what to run, exit 2. Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh
root=$(cd ../.. && pwd)

[ "$(uname -s)" = Linux ] ||
	stop "ECS runs containers with Docker Engine on Linux, and this is $(uname -s); use a Linux machine or VM, e.g. run: limactl start template://docker"

want=$(awk '$1 == "go" { print $2; exit }' "$root/go.mod")
go=${GO:-go}
command -v "$go" >/dev/null ||
	stop "Go $want or newer is missing; install it from https://go.dev/dl and put its bin directory into PATH"

# Asked outside the module, where no toolchain is switched to.
have=$(cd / && GOTOOLCHAIN=local "$go" env GOVERSION | sed 's/^go//; s/[ -].*//')
if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
	# Go 1.21 and later fetch the right toolchain themselves, if they may.
	(cd "$root" && "$go" version) >/dev/null 2>&1 ||
		stop "Go $have is too old, ECS needs $want; install it from https://go.dev/dl"
fi

# Any other problem is for the compiler to tell.
if ! problem=$(cd "$root" && "$go" list -deps -test ./... 2>&1 >/dev/null); then
	case $problem in
	*dial\ tcp* | *"no such host"* | *"connection refused"* | *"i/o timeout"* | *"proxyconnect"* | *"disabled by GOPROXY"* | *"TLS handshake"* | *"reading http"*)
		stop "Go modules can't be fetched (GOPROXY=$(cd "$root" && "$go" env GOPROXY)); go online or name a proxy you reach, e.g. run: go env -w GOPROXY=https://proxy.golang.org" ;;
	esac
fi

if [ "${1:-}" = race ] && ! command -v "$(cd "$root" && "$go" env CC)" >/dev/null; then
	may_install || stop "The race detector needs a C compiler; run: apt-get install -y gcc libc6-dev"
	install gcc libc6-dev
fi
