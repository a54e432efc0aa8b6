package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

const (
	// connectWithin bounds the wait for a registry that does not answer at
	// all, so that the caller hears of it within seconds.
	connectWithin = 4 * time.Second
	// maxAnswer bounds what is read of one answer. Registries refuse
	// manifests over 4 MiB.
	maxAnswer = 8 << 20
)

var (
	errPlain     = errors.New("the registry does not speak TLS and is not one of the insecure registries")
	errLinkLocal = errors.New("a link-local address is no registry's")
	errTooMuch   = fmt.Errorf("the registry's answer is longer than %d bytes", maxAnswer)
)

// transport carries requests to registries that anybody may name. It speaks
// without TLS only to those that may be spoken to so, never to link-local
// addresses (a cloud's metadata server), and reads only so much.
type transport struct {
	cfg  Config
	http *http.Transport
}

func newTransport(cfg Config) *transport {
	dialer := &net.Dialer{Timeout: connectWithin, KeepAlive: 30 * time.Second, ControlContext: refuseLinkLocal}
	return &transport{cfg: cfg, http: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    connectWithin,
		ResponseHeaderTimeout:  cfg.AnswerWithin,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}}
}

// Close gives up idle connections to registries.
func (i *Images) Close() { i.transport.http.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !t.cfg.plain(req.URL.Host) {
		return nil, errPlain
	}
	resp, err := t.http.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

// refuseLinkLocal looks at the address after the name is resolved, so that a
// name can't be used to get around it.
func refuseLinkLocal(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if at.Addr().Unmap().IsLinkLocalUnicast() {
		return errLinkLocal
	}
	return nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
