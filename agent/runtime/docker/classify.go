package docker

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"ecs/agent/runtime"
	"ecs/internal/initwire"
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

func imageVanished() *runtime.Failure {
	return &runtime.Failure{Outcome: task.ImageNotFound, Reason: "the image vanished from the engine before it could be run", Err: runtime.ErrNoImage}
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
		return imageVanished()
	case errdefs.IsInvalidArgument(err):
		return startFailed(text, nil)
	case callersFault(text):
		return startFailed(text, nil)
	}
	return err
}

// startError classifies a refused start. What the engine executes is init, so
// that it can't is never the caller's fault; an image may be in the way of what
// has to be mounted, though.
func startError(err error) error {
	if text := said(err); callersFault(text) {
		return startFailed(text, nil)
	}
	return err
}

// failedError says why init could not execute the program. starved: the kernel
// has killed for want of memory meanwhile.
func failedError(f initwire.Failed, program, user string, starved bool) error {
	errno := unix.Errno(f.Errno)
	if program == "" {
		return startFailed(f.Text, nil)
	}
	switch f.Reason {
	case initwire.NoCommand, initwire.NotExecutable:
		return startFailed(execReason(program, errno), nil)
	case initwire.BadUser:
		return startFailed(userReason(user, f.Text), nil)
	}
	switch errno {
	case unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EIO, unix.ENOSPC, unix.EDQUOT:
		return fmt.Errorf("execute the program: %s", f.Text) // the node's fault
	}
	if starved {
		return startFailed("the program was not executed for want of memory", nil)
	}
	return startFailed(f.Text, nil)
}

// userReason is the sentence for a user that init did not find.
func userReason(user, text string) string {
	name, group, _ := strings.Cut(user, ":")
	switch {
	case strings.Contains(text, "no such user"):
		return fmt.Sprintf("unable to find user %s: no matching entries in passwd file", name)
	case strings.Contains(text, "no such group"):
		return fmt.Sprintf("unable to find group %s: no matching entries in group file", group)
	case strings.Contains(text, "ids go from"):
		return "uids and gids must be in range 0-2147483647"
	}
	return text
}

// execReason is the sentence for a program that can't be executed.
func execReason(program string, errno unix.Errno) string {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG:
		return fmt.Sprintf("no such command: %q (it, or the interpreter it names, is not in the image)", program)
	case unix.EACCES, unix.EISDIR, unix.EPERM:
		return fmt.Sprintf("%q can't be executed: permission denied", program)
	}
	return fmt.Sprintf("%q can't be executed: %s", program, errno.Error())
}

// faults are texts of errors about what the image has where the engine has to
// mount something.
var faults = []*regexp.Regexp{
	regexp.MustCompile(`^mkdir /[^:]*: (not a directory|file exists|permission denied|read-only file system)`),
	regexp.MustCompile(`to rootfs at "` + initwire.Dir + `".*not a directory`),
}

func callersFault(text string) bool {
	for _, f := range faults {
		if f.MatchString(text) {
			return true
		}
	}
	return false
}

// asFailure is errors.As for a *runtime.Failure.
func asFailure(err error) (*runtime.Failure, bool) {
	var f *runtime.Failure
	return f, errors.As(err, &f)
}
