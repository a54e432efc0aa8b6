# Shared by the scripts beside it; sourced, not run.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

# stop LINE: one line that says what to do, and the exit status for "the
# machine is not ready", which is not that of a failed test.
stop() {
	say "$*"
	exit 2
}

is_debian() { [ -r /etc/debian_version ] && command -v apt-get >/dev/null; }

may_install() { [ "$(id -u)" = 0 ] && is_debian && [ "${ECS_INSTALL_DOCKER:-}" != no ]; }

# refresh fetches the package lists, once: a fresh machine has none, and what a
# release offers can't be asked before.
refresh() {
	if [ -n "${refreshed:-}" ]; then return; fi
	say "Fetching the package lists: apt-get update"
	apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 ||
		stop "apt-get could not fetch the package lists; run: apt-get update"
	refreshed=yes
}

# offers PACKAGE: the release has a package of that name.
offers() {
	refresh
	apt-cache show "$1" 2>/dev/null | awk -v name="$1" '$1 == "Package:" && $2 == name { found = 1 } END { exit !found }'
}

# install PACKAGE...: says what it will install, leaves five seconds to object,
# and installs it.
install() {
	say "Will install with apt-get in 5 s: $* (Ctrl-C stops; ECS_INSTALL_DOCKER=no never installs)"
	sleep 5
	refresh
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2 ||
		stop "apt-get could not install $*; run: apt-get update && apt-get install -y $*"
}
