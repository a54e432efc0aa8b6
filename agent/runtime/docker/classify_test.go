package docker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
	"ecs/internal/task"
)

// refusal is an answer of the engine as the client gives it.
func refusal(kind error, text string) error {
	return fmt.Errorf("Error response from daemon: %s%w", text, silent{kind})
}

// silent keeps the kind and adds no text.
type silent struct{ kind error }

func (s silent) Error() string { return "" }
func (s silent) Unwrap() error { return s.kind }

// What the engine (20.10.24 and later, runc 1.0 and 1.1) says of failed starts.
func TestStartErrors(t *testing.T) {
	const oci = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
	for _, tt := range []struct {
		kind error
		text string
		want string // the reason, or empty for the engine's own fault
	}{
		{errdefs.ErrInvalidArgument, oci + "error during container init: mkdir /proc/self/fd/7: not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type", "mkdir /proc/self/fd/7: not a directory"},
		{errdefs.ErrInvalidArgument, oci + `error during container init: error mounting "/x" to rootfs at "/.ecs": mount /x:/.ecs (via /proc/self/fd/6), flags: 0x5000: not a directory: unknown: Are you trying to mount a directory onto a file (or vice-versa)?`, "not a directory"},

		{errdefs.ErrInvalidArgument, oci + `exec: "/.ecs/init": stat /.ecs/init: no such file or directory: unknown`, ""},
		{errdefs.ErrInvalidArgument, oci + `exec: "/.ecs/init": permission denied: unknown`, ""},
		{errdefs.ErrInternal, oci + "error during container init: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted: unknown", ""},
		{errdefs.ErrInvalidArgument, oci + "error during container init: error mounting \"proc\" to rootfs at \"/proc\": no such file or directory: unknown", ""},
		{errdefs.ErrNotFound, "network ecs-1 not found", ""},
		{errdefs.ErrInternal, "no space left on device", ""},
	} {
		f, ok := asFailure(startError(refusal(tt.kind, tt.text)))
		switch {
		case tt.want == "" && ok:
			t.Errorf("%s: got %v, want the engine's fault", tt.text, f)
		case tt.want != "" && (!ok || f.Outcome != task.StartFailed || !strings.Contains(f.Reason, tt.want)):
			t.Errorf("%s: got %v, want start_failed because %q", tt.text, f, tt.want)
		}
	}
}

func TestCreateErrors(t *testing.T) {
	for _, tt := range []struct {
		kind error
		text string
		want task.Outcome // empty: the engine's fault
	}{
		{errdefs.ErrInvalidArgument, "invalid hostname", task.StartFailed},
		{errdefs.ErrNotFound, "No such image: sha256:00", task.ImageNotFound},
		{errdefs.ErrInternal, "mkdir /var/lib/docker/overlay2/x: no space left on device", ""},
		{errdefs.ErrConflict, "the container name is in use", ""},
		{errdefs.ErrNotFound, "network x not found", ""},
	} {
		f, _ := asFailure(createError(refusal(tt.kind, tt.text)))
		var got task.Outcome
		if f != nil {
			got = f.Outcome
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

// What engines say of failed pulls, from their streams and status lines.
func TestPullErrors(t *testing.T) {
	for _, tt := range []struct {
		text string
		auth bool
		want task.Outcome // empty: the engine's fault
	}{
		{"manifest for localhost:5000/x@sha256:00 not found: manifest unknown: manifest unknown", false, task.ImageNotFound},
		{"manifest unknown", true, task.ImageNotFound},
		{"name unknown: repository name not known to registry", false, task.ImageNotFound},
		{"pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", false, task.ImageNotFound},
		{"pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", true, task.ImageDenied},
		{"Get \"https://r/v2/\": unauthorized: incorrect username or password", true, task.ImageDenied},
		{"Head \"https://r/v2/x/manifests/1\": no basic auth credentials", false, task.ImageNotFound},
		{"toomanyrequests: You have reached your pull rate limit.", true, task.ImageUnavailable},
		{"Get \"https://r/v2/\": dial tcp: lookup r on 10.0.0.1:53: no such host", true, task.ImageUnavailable},
		{"Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused", true, task.ImageUnavailable},
		{"Get \"https://r/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)", false, task.ImageUnavailable},
		{"Get \"https://r/v2/\": x509: certificate signed by unknown authority", false, task.ImageUnavailable},
		{"received unexpected HTTP status: 503 Service Unavailable", false, task.ImageUnavailable},
		{"unexpected EOF", false, task.ImageUnavailable},
		{"no matching manifest for linux/amd64 in the manifest list entries", false, task.ImageInvalid},
		{"image operating system \"windows\" cannot be used on this platform", false, task.ImageInvalid},
		{"filesystem layer verification failed for digest sha256:00", false, task.ImageInvalid},
		{"failed to register layer: Error processing tar file(exit status 1): archive/tar: invalid tar header", false, task.ImageInvalid},
		{"failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device", false, ""},
		{"something nobody has seen yet", false, ""},
	} {
		f, _ := asFailure(pullError("r/x:1", tt.auth, errStream{tt.text}))
		var got task.Outcome
		if f != nil {
			got = f.Outcome
		}
		if got != tt.want {
			t.Errorf("%s (credentials: %v): got %q, want %q", tt.text, tt.auth, got, tt.want)
		}
	}
	if _, ok := asFailure(pullError("r/x:1", false, errors.New("Cannot connect to the Docker daemon"))); ok {
		t.Error("an engine that is gone: got a failure, want the engine's fault")
	}
}

// What init says of programs that it could not execute.
func TestFailedFrames(t *testing.T) {
	for _, tt := range []struct {
		frame   initwire.Failed
		starved bool
		want    string // the reason, or empty for the node's fault
	}{
		{initwire.Failed{Reason: initwire.NoCommand, Errno: int(unix.ENOENT)}, false, `no such command: "x"`},
		{initwire.Failed{Reason: initwire.NotExecutable, Errno: int(unix.EACCES)}, false, `"x" can't be executed: permission denied`},
		{initwire.Failed{Reason: initwire.NotExecutable, Errno: int(unix.ENOEXEC)}, false, `"x" can't be executed: exec format error`},
		{initwire.Failed{Reason: initwire.BadUser, Text: `user "u:g": no such user in /etc/passwd`}, false, "unable to find user u:"},
		{initwire.Failed{Reason: initwire.BadUser, Text: `user "u:g": no such group in /etc/group: "g"`}, false, "unable to find group g:"},
		{initwire.Failed{Reason: initwire.BadUser, Text: "this id is reserved"}, false, "reserved"},
		{initwire.Failed{Reason: initwire.BadArg, Errno: int(unix.E2BIG), Text: "argument list too long"}, false, "too long"},
		{initwire.Failed{Reason: initwire.BadOther, Text: "the container could not be prepared"}, false, "could not be prepared"},
		{initwire.Failed{Reason: initwire.BadOther, Text: "the container could not be prepared"}, true, "want of memory"},
		{initwire.Failed{Reason: initwire.BadOther, Errno: int(unix.ENOMEM)}, false, ""},
		{initwire.Failed{Reason: initwire.BadFile, Errno: int(unix.ENOSPC)}, false, ""},
	} {
		f, ok := asFailure(failedError(tt.frame, "x", "u:g", tt.starved))
		if ok != (tt.want != "") || ok && (f.Outcome != task.StartFailed || !strings.Contains(f.Reason, tt.want)) {
			t.Errorf("%+v: got %v, want %q", tt.frame, f, tt.want)
		}
	}
}

// FuzzPullStream: whatever an engine sends, the stream ends and errors are
// found.
func FuzzPullStream(f *testing.F) {
	f.Add(`{"status":"Pulling"}` + "\n" + `{"errorDetail":{"message":"x"},"error":"x"}`)
	f.Add(`{"status":1}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		err := follow(strings.NewReader(text), func() {})
		var said errStream
		if errors.As(err, &said) && said.text == "" {
			t.Errorf("%q: got an error without a text", text)
		}
	})
}

// What the engine says (20.10.24) of paths that lead nowhere, and of other faults
// in the same words.
func TestPathsThatLeadNowhere(t *testing.T) {
	const root = "/var/lib/docker/overlay2/cd11/merged"
	for _, tt := range []struct {
		kind       error
		path, text string
		want       bool
	}{
		{errdefs.ErrInternal, "/l/x", "evalSymlinksInScope: too many links in " + root + "/l", true},
		{errdefs.ErrInternal, "/f/x", "lstat " + root + "/f/x: not a directory", true},
		{errdefs.ErrInternal, "/f/not a directory", "lstat " + root + "/f/not a directory: not a directory", true},
		{errdefs.ErrInternal, "/l/x", "SecureJoin /l/x: too many levels of symbolic links", true},
		{errdefs.ErrInternal, "/long", "lstat " + root + "/long: file name too long", true},

		{errdefs.ErrInternal, "/x/not a directory", "lstat " + root + "/x/not a directory: input/output error", false},
		{errdefs.ErrInternal, "/x: not a directory", "mount " + root + "/x: not a directory", false},
		{errdefs.ErrInternal, "/evalSymlinksInScope: too many links in /x", "open " + root + "/evalSymlinksInScope: too many links in /x: input/output error", false},
		{errdefs.ErrInternal, "/x", "error creating overlay mount to " + root + ": too many levels of symbolic links; and more", false},
		{errors.New("not an answer"), "/f/x", "lstat " + root + "/f/x: not a directory", false},
	} {
		if got := noWay(refusal(tt.kind, tt.text), tt.path); got != tt.want {
			t.Errorf("%s: %s: got %v, want %v", tt.path, tt.text, got, tt.want)
		}
	}
}
