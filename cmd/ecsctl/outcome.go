package main

import (
	"fmt"
	"strings"

	"ecs/proto/api"
)

// Exit statuses of `run`, in the manner of docker run and timeout(1).
const (
	exitTimeout    = 124
	exitService    = 125
	exitNotRunable = 126
	exitNoCommand  = 127
	exitCancelled  = 130
	exitKilled     = 137
)

// exitStatus is what `run` exits with for a finished task.
func exitStatus(t *api.Task) int {
	switch t.Outcome {
	case api.OutcomeExited:
		if t.ExitCode != nil {
			return *t.ExitCode
		}
		return exitService
	case api.OutcomeOOMKilled:
		if t.ExitCode != nil && *t.ExitCode != 0 {
			return *t.ExitCode
		}
		return exitKilled
	case api.OutcomeTimedOut, api.OutcomeDeadlineExceeded, api.OutcomeQueueExpired, api.OutcomePullTimedOut:
		return exitTimeout
	case api.OutcomeCancelled:
		return exitCancelled
	case api.OutcomeStartFailed:
		return startFailedStatus(t.Reason)
	}
	return exitService
}

// startFailedStatus tells a missing command from one that cannot be executed,
// by the words engines use, as docker run does.
func startFailedStatus(reason string) int {
	reason = strings.ToLower(reason)
	switch {
	case containsAny(reason, "no such command", "executable file not found", "no such file or directory"):
		return exitNoCommand
	case containsAny(reason, "permission denied", "is a directory", "exec format error", "can't be executed"):
		return exitNotRunable
	}
	return exitService
}

// verdict says in lines how a task ended, where its exit status alone does not,
// and how it might have gone better.
func verdict(t *api.Task, stderr string) []string {
	var lines []string
	if t.Outcome != api.OutcomeExited {
		line := t.Outcome
		if t.Reason != "" {
			line += ": " + t.Reason
		}
		lines = append(lines, fmt.Sprintf("%s (task %s)", line, t.ID))
	}
	failed := t.Outcome == api.OutcomeExited && t.ExitCode != nil && *t.ExitCode != 0
	if failed {
		lines = append(lines, hints(t, stderr)...)
	}
	return lines
}

// What programs say when they miss a network or a capability.
var (
	networkWords    = []string{"bad address", "network is unreachable", "network unreachable", "temporary failure in name resolution", "could not resolve", "name or service not known", "no such host", "unable to resolve", "try again later", "getaddrinfo", "ping: ", "socket: "}
	capabilityWords = []string{"operation not permitted", "permission denied"}
)

// hints says what the program may have missed of what tasks do not get unless
// they ask.
func hints(t *api.Task, stderr string) []string {
	stderr = strings.ToLower(stderr)
	var lines []string
	if t.Spec.Network == "none" && containsAny(stderr, networkWords...) {
		lines = append(lines, "the program may want a network, and a task has none unless it asks: try --network egress")
	}
	if containsAny(stderr, capabilityWords...) {
		lines = append(lines, "the program may want a capability, and a task has none unless it asks: try --cap-add, for example NET_RAW for ping, CHOWN for chown, NET_BIND_SERVICE for a port below 1024")
	}
	return lines
}

func containsAny(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}
