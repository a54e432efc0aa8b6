package api

import (
	"net"
	"net/http"
	"strings"
)

// NewRedirect makes the handler of a port without TLS: it sends everybody to the
// same address with it. port is that of HTTPS as clients see it. A request that
// is not only for reading is sent on as it is (308), but its secret has crossed
// the network in the clear by then.
func NewRedirect(port string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.Trim(host, "[]")
		if host == "" || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-:") != "" {
			http.Error(w, "this port only redirects to HTTPS, and the request names no host", http.StatusBadRequest)
			return
		}
		if port != "443" || strings.Contains(host, ":") {
			host = net.JoinHostPort(host, port)
		}
		status := http.StatusPermanentRedirect
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			status = http.StatusMovedPermanently
		}
		w.Header().Set("Connection", "close")
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), status)
	})
}
