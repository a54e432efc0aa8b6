package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ecs/proto/api"
)

func TestWhereARequestComesFromBehindProxies(t *testing.T) {
	trusted, err := ParseProxies([]string{"127.0.0.1", "10.1.0.0/16", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		remote string
		via    []string
		want   string
	}{
		"no proxy":                     {"192.0.2.1:5", nil, "192.0.2.1"},
		"a stranger who says it is":    {"192.0.2.1:5", []string{"198.51.100.9"}, "192.0.2.1"},
		"one proxy":                    {"127.0.0.1:5", []string{"198.51.100.9"}, "198.51.100.9"},
		"what the sender made up":      {"127.0.0.1:5", []string{"203.0.113.7, 198.51.100.9"}, "198.51.100.9"},
		"two proxies":                  {"127.0.0.1:5", []string{"203.0.113.7, 198.51.100.9, 10.1.2.3"}, "198.51.100.9"},
		"two headers":                  {"127.0.0.1:5", []string{"203.0.113.7", "198.51.100.9", "10.1.2.3:77"}, "198.51.100.9"},
		"IPv6":                         {"[fd00::1]:5", []string{"[2001:db8::1]:99"}, "2001:db8::/64"},
		"a proxy itself":               {"10.1.2.3:5", nil, "10.1.2.3"},
		"rubbish":                      {"127.0.0.1:5", []string{"198.51.100.9, who knows"}, "127.0.0.1"},
		"an IPv4 address in IPv6 form": {"[::ffff:127.0.0.1]:5", []string{"::ffff:198.51.100.9"}, "198.51.100.9"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.remote
		r.Header["X-Forwarded-For"] = c.via
		proxied(r, trusted)
		if got := addressOf(r); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	for _, bad := range []string{"", "localhost", "10.0.0.0/33", "10.0.0.1:80"} {
		if _, err := ParseProxies([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// Behind something that ends TLS callers keep limits and guesses apart, and a token
// does not cross the network in the clear because its last step was on this machine.
func TestCallersBehindAProxyAreToldApart(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Proxies, _ = ParseProxies([]string{"127.0.0.1"}) }, limited(Limits{AddressRate: 1}))
	ask := func(from string) int {
		return w.do(http.MethodGet, "/v2/tasks", "", "X-Forwarded-For", from).status
	}
	if one, again, other := ask("198.51.100.1"), ask("198.51.100.1"), ask("198.51.100.2"); one != 200 || again != 429 || other != 200 {
		t.Errorf("got %d, %d and %d of another address, want 200, 429, 200", one, again, other)
	}
	join := func(header ...string) answer { return w.do(http.MethodPost, "/v2/join", `{}`, header...) }
	w.problem(join("X-Forwarded-For", "198.51.100.3"), http.StatusForbidden, api.CodeForbidden)
	w.problem(join("X-Forwarded-For", "198.51.100.3", "X-Forwarded-Proto", "http"), http.StatusForbidden, api.CodeForbidden)
	w.problem(join("X-Forwarded-For", "198.51.100.3", "X-Forwarded-Proto", "https"), http.StatusBadRequest, api.CodeInvalidTask)

	// Without the setting nobody is believed.
	r := httptest.NewRequest(http.MethodPost, "/v2/join", strings.NewReader(`{}`))
	r.RemoteAddr = "192.0.2.1:5"
	r.Header.Set("X-Forwarded-For", "127.0.0.1")
	r.Header.Set("X-Forwarded-Proto", "https")
	rec := newRecorder()
	newWorld(t).handler.ServeHTTP(rec, r)
	if rec.Code != http.StatusForbidden {
		t.Errorf("got %d for a stranger who says that he is here", rec.Code)
	}
}
