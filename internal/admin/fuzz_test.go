package admin

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// FuzzRequest reads the bodies that come over the socket.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"addrs":["127.0.0.1:7946"]}`))
	f.Add([]byte(`{"force":true}`))
	f.Add([]byte(`{"force":true,"colour":"red"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, into := range []any{new(joinRequest), new(leaveRequest)} {
			w := httptest.NewRecorder()
			ok := read(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body)), into)
			if want := http.StatusBadRequest; !ok && w.Code != want {
				t.Errorf("got %d, want %d", w.Code, want)
			}
		}
	})
}
