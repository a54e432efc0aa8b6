package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream2 is what one HTTP/2 request was answered with: a status, or the error that
// the stream or the connection ended with.
type stream2 struct {
	status string
	reset  http2.ErrCode
	ended  bool // the connection was
}

// refused says that no handler saw it as a request that may go on.
func (s stream2) refused() bool {
	return s.ended || s.reset != 0 || strings.HasPrefix(s.status, "4")
}

// ask2 sends raw headers and a body over a connection of its own.
func ask2(t *testing.T, addr string, fields [][2]string, body string) (got stream2) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err = errors.Join(framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""}))
	if err == nil && body != "" {
		err = framer.WriteData(1, true, []byte(body))
	}
	if err != nil {
		return stream2{ended: true}
	}
	for {
		frame, err := framer.ReadFrame()
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return stream2{status: f.PseudoValue("status")}
		case *http2.RSTStreamFrame:
			return stream2{reset: f.ErrCode}
		case *http2.GoAwayFrame:
			return stream2{ended: true}
		}
		if err != nil {
			return stream2{ended: true}
		}
	}
}

// TestHTTP2RequestsHideNothing sends what would be two requests, or another one, to
// whoever writes it down as HTTP/1.
func TestHTTP2RequestsHideNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	go func() {
		served <- s.serveHTTP(ctx, l, publicSource(t, time.Hour).TLS(), handler, func() {})
	}()
	defer func() { cancel(); <-served }()
	good := [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/v2/tasks"}}
	with := func(more ...[2]string) [][2]string { return append(good[:len(good):len(good)], more...) }
	if got := ask2(t, l.Addr().String(), with([2]string{"content-length", "2"}), "{}"); got.status != "200" {
		t.Fatalf("a good request: got %+v", got)
	}
	const smuggled = "GET /v2/nodes HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, tt := range map[string]struct {
		fields [][2]string
		body   string
	}{
		"transfer-encoding":           {with([2]string{"transfer-encoding", "chunked"}), "0\r\n\r\n" + smuggled},
		"connection":                  {with([2]string{"connection", "transfer-encoding"}), "x"},
		"upgrade":                     {with([2]string{"upgrade", "h2c"}), "x"},
		"content-length too short":    {with([2]string{"content-length", "1"}), "{}" + smuggled},
		"content-length too long":     {with([2]string{"content-length", "1000"}), "{}"},
		"content-length zero":         {with([2]string{"content-length", "0"}), smuggled},
		"two content-lengths":         {with([2]string{"content-length", "2"}, [2]string{"content-length", "3"}), "{}"},
		"a content-length with words": {with([2]string{"content-length", "2, 2"}), "{}"},
		"CRLF in a value":             {with([2]string{"x-a", "b\r\n" + smuggled}), "x"},
		"LF in a value":               {with([2]string{"x-a", "b\nhost: y"}), "x"},
		"NUL in a value":              {with([2]string{"x-a", "b\x00"}), "x"},
		"CRLF in a name":              {with([2]string{"x\r\nhost", "y"}), "x"},
		"a colon in a name":           {with([2]string{"x: y", "z"}), "x"},
		"a name in capitals":          {with([2]string{"Transfer-Encoding", "chunked"}), "x"},
		"a space in the path":         {[][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/ HTTP/1.1\r\nHost: y"}}, ""},
		"CRLF in the method":          {[][2]string{{":method", "GET / HTTP/1.1\r\nx"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}}, ""},
		"two paths":                   {with([2]string{":path", "/v2/nodes"}), "x"},
		"no path":                     {good[:3], "x"},
		"a pseudo-header behind":      {append(with([2]string{"x-a", "b"}), [2]string{":path", "/y"}), "x"},
		"an unknown pseudo-header":    {append([][2]string{{":evil", "1"}}, good...), "x"},
	} {
		if got := ask2(t, l.Addr().String(), tt.fields, tt.body); !got.refused() {
			t.Errorf("%s: got %+v, want it refused", name, got)
		}
	}
}
