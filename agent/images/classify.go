package images

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"unicode"

	regtransport "github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// classify says what a registry's refusal or silence means, and whether it may
// be another one if asked again.
func classify(ref reference, err error) (f *runtime.Failure, again bool) {
	var answer *regtransport.Error
	if errors.As(err, &answer) {
		return classifyAnswer(ref, answer)
	}
	why, again := "it could not be understood: check the registry's name", false
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.Is(err, errPlain), errors.Is(err, http.ErrSchemeMismatch) && ref.remote.Context().Scheme() == "https":
		why = "it does not speak TLS; the operator can add it to the insecure registries"
	case errors.Is(err, errLinkLocal):
		why = "its address is link-local, where no registry may be"
	case errors.As(err, &dns) && dns.IsNotFound:
		why = "no host has this name: check the registry's name"
	case errors.As(err, &certificate):
		why = "its certificate is not trusted on this node"
	case errors.Is(err, syscall.ECONNREFUSED):
		why, again = "it refuses connections; try again when it is up", true
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		why = "it did not answer in time; try again later"
	case errors.As(err, &network):
		why, again = "the connection broke; try again later", true
	}
	return unavailable(ref, why, err), again
}

func classifyAnswer(ref reference, answer *regtransport.Error) (f *runtime.Failure, again bool) {
	path := ""
	if answer.Request != nil {
		path = answer.Request.URL.Path
	}
	status := answer.StatusCode
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return denied(ref, answer), false
	case status == http.StatusNotFound && strings.Contains(path, "/manifests/"):
		return notFound(ref, answer), false
	case status == http.StatusTooManyRequests:
		return unavailable(ref, "it limits how often images are pulled (429); try again later or pass registry credentials (creds / registry_auth)", answer), true
	case status >= 500:
		return unavailable(ref, fmt.Sprintf("it is in trouble (%d); try again later", status), answer), true
	}
	return unavailable(ref, fmt.Sprintf("it answers %d to what a registry should understand; check the registry's name", status), answer), false
}

// reword gives an engine's failed pull the words of this package; what the
// engine said stays its cause.
func reword(ref reference, name string, f *runtime.Failure) *runtime.Failure {
	said := error(f)
	if f.Err != nil {
		said = f.Err
	}
	why := strings.TrimPrefix(f.Reason, "image "+name+": ")
	switch f.Outcome {
	case task.ImageDenied:
		return denied(ref, said)
	case task.ImageNotFound:
		return notFound(ref, said)
	case task.ImageUnavailable:
		return unavailable(ref, why+"; try again later", said)
	case task.ImageInvalid:
		return invalid(ref, why, said)
	}
	return f
}

func denied(ref reference, err error) *runtime.Failure {
	return &runtime.Failure{
		Outcome: task.ImageDenied,
		Reason: fmt.Sprintf("registry %s refuses image %s to these credentials; check the username and password (creds / registry_auth) and that this account may pull it",
			ref.registry(), ref.asked),
		Err: cause{err},
	}
}

func notFound(ref reference, err error) *runtime.Failure {
	return &runtime.Failure{
		Outcome: task.ImageNotFound,
		Reason:  fmt.Sprintf("registry %s has no image %s; check its name and tag", ref.registry(), ref.asked),
		Err:     cause{err},
	}
}

func unavailable(ref reference, why string, err error) *runtime.Failure {
	return &runtime.Failure{
		Outcome: task.ImageUnavailable,
		Reason:  fmt.Sprintf("registry %s of image %s is not available: %s", ref.registry(), ref.asked, why),
		Err:     cause{err},
	}
}

func invalid(ref reference, why string, err error) *runtime.Failure {
	f := &runtime.Failure{
		Outcome: task.ImageInvalid,
		Reason:  fmt.Sprintf("image %s of registry %s can't be run: %s; another tag or a rebuilt image may do", ref.asked, ref.registry(), why),
	}
	if err != nil {
		f.Err = cause{err}
	}
	return f
}

// hidden is what a caller without credentials is told: registries answer the
// same for what is missing and for what is private.
func hidden(ref reference, err error) *runtime.Failure {
	return &runtime.Failure{
		Outcome: task.ImageNotFound,
		Reason: fmt.Sprintf("image %s of registry %s is missing or private; pass registry credentials (creds / registry_auth)",
			ref.asked, ref.registry()),
		Err: err,
	}
}

// cause is an error of a registry that is fit for logs and records: one line,
// bounded, and without the body of an answer that is not in the registry's form
// (anybody may name a host that is no registry).
type cause struct{ err error }

func (c cause) Unwrap() error { return c.err }

func (c cause) Error() string {
	var answer *regtransport.Error
	if !errors.As(c.err, &answer) {
		return clean(c.err.Error())
	}
	said := fmt.Sprintf("HTTP %d", answer.StatusCode)
	if answer.Request != nil {
		said = fmt.Sprintf("%s %s%s: %s", answer.Request.Method, answer.Request.URL.Host, answer.Request.URL.Path, said)
	}
	for _, d := range answer.Errors {
		said += fmt.Sprintf(" %s (%s)", d.Code, d.Message)
	}
	return clean(said)
}

// clean makes one short printable line of a text that others wrote.
func clean(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text)
	const most = 300
	runes := []rune(text)
	return string(runes[:min(most, len(runes))])
}
