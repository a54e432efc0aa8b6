#!/usr/bin/env bash
# engine.sh up [MARK]    makes sure that a container engine answers. Where none
#                        does and this is root on Debian or Ubuntu, it installs
#                        and starts the distribution's; otherwise one line names
#                        the command to run, exit 2. With MARK, a file, it notes
#                        there that the engine was started by this call.
# engine.sh down MARK    stops the engine that `up MARK` started, if it did.
#
# Idempotent, and quick when an engine answers already.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

run_dir=${ECS_RUN_DIR:-/run}
socket=$run_dir/docker.sock
log=/var/log/ecs-dockerd.log
packages=(docker.io iptables ca-certificates)

# Everything an engine is asked has a deadline: one that hangs does not answer.
engine() { timeout 15 docker "$@"; }

answers() { command -v docker >/dev/null && engine version --format '{{.Server.Version}}' >/dev/null 2>&1; }

refused_for_permission() {
	command -v docker >/dev/null && grep -qi 'permission denied' <<<"$(engine version 2>&1 >/dev/null)"
}

# alive PID NAME: a process of that name, and not only what is left of one that
# nobody waits for.
alive() {
	awk -v name="$2" '$1 == "Name:" { same = $2 == name } $1 == "State:" { dead = $2 == "Z" }
		END { exit !(same && !dead) }' "/proc/$1/status" 2>/dev/null
}

# running NAME: the pids of processes of that name, on one line.
running() {
	local dir pids=()
	for dir in /proc/[0-9]*; do
		if alive "${dir#/proc/}" "$1"; then pids+=("${dir#/proc/}"); fi
	done
	echo "${pids[*]}"
}

# An engine that was killed leaves files that keep the next one from starting:
# pid files whose number may be another process's by now, and sockets nobody
# listens on.
clear_stale() {
	local file
	if [ -z "$(running dockerd)" ]; then
		rm -f "$run_dir/docker.pid" "$socket"
	fi
	for file in "$run_dir"/docker/containerd/{,docker-}containerd.pid; do
		if [ -e "$file" ] && ! alive "$(cat "$file")" containerd; then rm -f "$file"; fi
	done
	if [ -z "$(running containerd)" ]; then
		rm -f "$run_dir/containerd/containerd.sock" "$run_dir"/containerd/containerd.sock.ttrpc \
			"$run_dir"/docker/containerd/*.sock "$run_dir"/docker/containerd/*.sock.ttrpc
	fi
}

wait_until_it_answers() {
	local deadline=$((SECONDS + ${1:-60}))
	until answers; do
		if [ $SECONDS -ge $deadline ]; then return 1; fi
		sleep 0.5
	done
}

# serve becomes dockerd, which outlives this script: it holds none of the files
# that are open here, or who reads a caller's output would never see its end.
serve() {
	local fd
	for fd in "/proc/$BASHPID/fd"/*; do
		fd=${fd##*/}
		if [ "$fd" -gt 2 ]; then { exec {fd}>&-; } 2>/dev/null; fi
	done
	exec setsid dockerd
}

start() {
	local by=systemd
	if [ -d /run/systemd/system ]; then
		say "Starting Docker Engine: systemctl start docker"
		systemctl reset-failed docker.service docker.socket 2>/dev/null || true
		systemctl start docker >&2 || stop "docker.service does not start; see: journalctl -u docker"
	else
		say "Starting Docker Engine: dockerd, log in $log"
		clear_stale
		# Nothing mounts cgroups where no init system does.
		if ! grep -qs ' /sys/fs/cgroup ' /proc/mounts; then mount -t cgroup2 none /sys/fs/cgroup; fi
		serve >>"$log" 2>&1 </dev/null &
		by=$! # which becomes dockerd: a background job leads no process group
		disown
	fi
	if [ -n "$mark" ]; then echo "$by" >"$mark"; fi
	if ! wait_until_it_answers 60; then
		tail -n 5 "$log" >&2 2>/dev/null || true
		# Or the next call would find it, and wait for it in vain.
		end_started "$by"
		if [ -n "$mark" ]; then rm -f "$mark"; fi
		stop "Docker Engine was started and does not answer; see $log, or: journalctl -u docker"
	fi
}

# end_started BY: ends the engine that start started, systemd or a pid. One that
# does not end when asked is killed.
end_started() {
	local deadline=$((SECONDS + 30))
	if [ "$1" = systemd ]; then
		systemctl stop docker.service docker.socket >&2 || true
	elif alive "$1" dockerd; then
		kill "$1"
		while alive "$1" dockerd && [ $SECONDS -lt $deadline ]; do sleep 0.2; done
		if alive "$1" dockerd; then kill -9 "$1"; fi
	fi
}

up() {
	if answers; then return; fi
	case ${DOCKER_HOST:-} in
	"" | "unix:///var/run/docker.sock" | "unix:///run/docker.sock") ;;
	*) stop "No engine answers at DOCKER_HOST=$DOCKER_HOST; start it there, or run: unset DOCKER_HOST" ;;
	esac
	if refused_for_permission; then
		stop "You may not use Docker Engine; run: sudo usermod -aG docker $(id -un) && newgrp docker"
	fi
	if [ "$(id -u)" != 0 ]; then
		if command -v dockerd >/dev/null; then stop "Docker Engine does not answer; run: sudo $PWD/engine.sh up"; fi
		if is_debian; then stop "Docker Engine is missing; run: sudo apt-get install -y ${packages[*]}"; fi
	fi
	if ! is_debian && ! installed; then
		stop "Docker Engine is missing; install it (https://docs.docker.com/engine/install/) and run: sudo systemctl start docker"
	fi
	if [ "${ECS_INSTALL_DOCKER:-}" = no ]; then
		stop "No container engine answers and ECS_INSTALL_DOCKER=no; run: env -u ECS_INSTALL_DOCKER $PWD/engine.sh up"
	fi
	# First, because without a client no engine answers.
	if ! installed; then install_engine; fi
	if ! answers && [ -n "$(running dockerd)" ]; then
		say "Waiting for the dockerd that runs already (pid $(running dockerd))"
		wait_until_it_answers 30 ||
			stop "dockerd runs and does not answer; run: kill $(running dockerd) && $PWD/engine.sh up"
	fi
	if ! answers; then start; fi
	say "Docker Engine $(engine version --format '{{.Server.Version}}') answers."
}

installed() { command -v dockerd >/dev/null && command -v docker >/dev/null; }

# Newer releases have the client in a package of its own.
install_engine() {
	may_install || stop "Docker Engine is missing; run as root: apt-get install -y ${packages[*]}"
	if offers docker-cli; then packages+=(docker-cli); fi
	install "${packages[@]}"
}

down() {
	local by
	if [ ! -e "$mark" ]; then return; fi
	by=$(cat "$mark")
	rm -f "$mark"
	say "Stopping the Docker Engine that was started for this"
	end_started "$by"
}

command=${1:-up} mark=${2:-}
case $command in
up) up ;;
down) down ;;
*) stop "usage: $0 up [MARK] | down MARK" ;;
esac
