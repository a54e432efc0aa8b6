package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"ecs/proto/api"
)

const defaultEndpoint = "http://127.0.0.1:8448"

// access gives what flags and environment say of the service and the caller.
// Without roots the service's certificate is of one of the system's authorities.
func (a *app) access() (urls []string, key, secret string, roots *x509.CertPool, err error) {
	key, secret = a.pick(a.key, "ECS_KEY", ""), a.pick(a.secret, "ECS_SECRET", "")
	if key == "" || secret == "" {
		return nil, "", "", nil, usage("key and secret are needed: set ECS_KEY and ECS_SECRET, or give --api-key and --api-secret (`ecsctl dev status` prints those of a cluster on this machine)")
	}
	if file := a.pick(a.ca, "ECS_CA_CERT", ""); file != "" {
		if roots, err = rootsIn(file); err != nil {
			return nil, "", "", nil, err
		}
	}
	return a.endpoints(), key, secret, roots, nil
}

// client connects as flags and environment say.
func (a *app) client() (*api.Client, error) {
	urls, key, secret, roots, err := a.access()
	if err != nil {
		return nil, err
	}
	var options []api.Option
	if roots != nil {
		options = append(options, api.WithRoots(roots))
	}
	c, err := api.New(urls, key, secret, options...)
	if err != nil {
		return nil, usage("%w", err)
	}
	return c, nil
}

// pick gives a flag's value, else the variable's, else what there is otherwise.
func (a *app) pick(flag, name, otherwise string) string {
	if flag != "" {
		return flag
	}
	if value := a.env(name); value != "" {
		return value
	}
	return otherwise
}

// endpoints are the URLs of control nodes to ask.
func (a *app) endpoints() []string {
	return endpoints(a.pick(a.endpoint, "ECS_ENDPOINT", defaultEndpoint))
}

// sealed refuses endpoints that what is secret would reach in the clear.
func sealed(urls []string) error {
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			return usage("endpoint %q: %w", text, err)
		}
		ip := net.ParseIP(u.Hostname())
		if u.Scheme != "https" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return usage("%s: a join token does not cross a network in the clear: give an https:// endpoint", text)
		}
	}
	return nil
}

// rootsIn reads the authorities that a service's certificate may be of.
func rootsIn(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the service's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}

// endpoints splits a list of URLs; a host alone is taken for http://host.
func endpoints(list string) []string {
	var urls []string
	for _, e := range strings.Split(list, ",") {
		e = strings.TrimSpace(e)
		if e == "" {
			continue
		}
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		urls = append(urls, e)
	}
	return urls
}
