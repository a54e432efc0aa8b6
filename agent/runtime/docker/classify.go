package docker

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// The engine's status codes do not tell a caller's fault from the engine's own
// (an unknown user is a 500), so errors are classified by what was asked and
// by what the text says. What no rule knows stays the engine's fault: that is
// retried, a caller's fault never is.

// answered reports whether the engine took the call and refused it; any other
// error leaves open whether it did what it was asked.
func answered(err error) bool {
	for _, is := range []func(error) bool{errdefs.IsNotFound, errdefs.IsInvalidArgument, errdefs.IsConflict,
		errdefs.IsInternal, errdefs.IsUnauthorized, errdefs.IsPermissionDenied, errdefs.IsFailedPrecondition,
		errdefs.IsNotImplemented, errdefs.IsUnavailable} {
		if is(err) {
			return true
		}
	}
	return false
}

// said is the engine's own text without what its layers put around it.
func said(err error) string {
	s := err.Error()
	for _, before := range []string{"Error response from daemon: ", "unable to start container process: ",
		"starting container process caused: ", "error during container init: "} {
		if i := strings.LastIndex(s, before); i >= 0 {
			s = s[i+len(before):]
		}
	}
	// containerd ends with its own code and the engine with a guess about
	// mounts, of which a task has none.
	s, _, _ = strings.Cut(s, ": unknown: Are you trying")
	return strings.TrimSpace(strings.TrimSuffix(s, ": unknown"))
}

func startFailed(reason string, err error) *runtime.Failure {
	return &runtime.Failure{Outcome: task.StartFailed, Reason: runtime.Reason(reason), Err: err}
}

// networkMissing is how engines say that a container's network is not there.
var networkMissing = regexp.MustCompile(`network \S+ not found`)

// networkGone reports whether a call was refused for want of the network that
// the container is to be on.
func networkGone(err error) bool {
	return err != nil && errdefs.IsNotFound(err) && networkMissing.MatchString(err.Error())
}

// createError classifies a refused create.
func createError(err error) error {
	text := said(err)
	switch {
	case errdefs.IsNotFound(err) && strings.Contains(text, "No such image"):
		return &runtime.Failure{Outcome: task.ImageNotFound, Reason: "the image vanished from the engine before it could be run", Err: runtime.ErrNoImage}
	case errdefs.IsInvalidArgument(err):
		return startFailed(text, nil)
	case callersFault(text):
		return startFailed(text, nil)
	}
	return err
}

// execError is how runc says that it could not execute a program.
var execError = regexp.MustCompile(`exec: "([^"]*)": (.*)`)

// startError classifies a refused start.
func startError(err error) error {
	text := said(err)
	if m := execError.FindStringSubmatch(text); m != nil {
		if strings.HasSuffix(m[1], "docker-init") {
			return err
		}
		return startFailed(execReason(m[1], m[2]), nil)
	}
	if callersFault(text) {
		return startFailed(text, nil)
	}
	return err
}

// execReason is the sentence for a program that can't be executed.
func execReason(program, cause string) string {
	low := strings.ToLower(cause)
	switch {
	case strings.Contains(low, "no such file") || strings.Contains(low, "not found in $path"):
		return fmt.Sprintf("no such command: %q (it, or the interpreter it names, is not in the image)", program)
	case strings.Contains(low, "permission denied"):
		return fmt.Sprintf("%q can't be executed: permission denied", program)
	}
	return fmt.Sprintf("%q can't be executed: %s", program, cause)
}

// faults are texts of errors about the task's user or working directory, as
// the engine and runc word them.
var faults = []*regexp.Regexp{
	regexp.MustCompile(`unable to find (user|group) `),
	regexp.MustCompile(`no matching entries in (passwd|group) file`),
	regexp.MustCompile(`uids and gids must be in range`),
	regexp.MustCompile(`^Cannot mkdir: .* is not a directory$`), // workdir, at create
	regexp.MustCompile(`^mkdir /[^:]*: (not a directory|file exists|permission denied|read-only file system)`),
	regexp.MustCompile(`chdir to cwd \("`),
	regexp.MustCompile(`(?i)argument list too long`),
}

func callersFault(text string) bool {
	for _, f := range faults {
		if f.MatchString(text) {
			return true
		}
	}
	return false
}

// initLine is all that docker-init writes when it can't execute the program.
// It then ends with 127, 126 or 1.
var initLine = regexp.MustCompile(`^\[FATAL tini \(\d+\)\] exec (.*) failed: ([^\n]*)\n$`)

// initFailure recognises a program that docker-init could not execute: its
// line on stderr, nothing else on either stream. A program that writes the
// same and ends the same has only itself to deceive.
func initFailure(code int, stdout int64, stderr []byte) *runtime.Failure {
	if stdout > 0 || (code != 127 && code != 126 && code != 1) {
		return nil
	}
	m := initLine.FindSubmatch(stderr)
	if m == nil {
		return nil
	}
	return startFailed(execReason(string(m[1]), string(m[2])), nil)
}

// asFailure is errors.As for a *runtime.Failure.
func asFailure(err error) (*runtime.Failure, bool) {
	var f *runtime.Failure
	return f, errors.As(err, &f)
}
