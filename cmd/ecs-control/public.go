package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"

	"ecs/control/api"
	"ecs/internal/daemon"
	"ecs/internal/publictls"
)

// publicOptions are the settings of TLS on the port that clients use, and what
// check has read.
type publicOptions struct {
	cert, key             string
	docsCert, docsKey     string
	apiDomain, docsDomain string
	versions, ciphers     daemon.List
	redirectAddr          string
	insecure              bool
	proxies               daemon.List

	public   *publictls.Source // nil: no TLS
	warnings []string
	trusted  []netip.Prefix // of proxies
}

func (o *publicOptions) define(fs *flag.FlagSet) {
	fs.StringVar(&o.cert, "tls-cert", "", "`file` with the certificate of the HTTP API and its chain, PEM; read again when it changes")
	fs.StringVar(&o.key, "tls-key", "", "`file` with its private key, PEM")
	fs.StringVar(&o.apiDomain, "api-domain", "", "`name` that --tls-cert is for; names that are no other's get it too")
	fs.StringVar(&o.docsCert, "docs-cert", "", "`file` with a second certificate, for clients that ask for --docs-domain")
	fs.StringVar(&o.docsKey, "docs-key", "", "`file` with its private key")
	fs.StringVar(&o.docsDomain, "docs-domain", "", "`name` that --docs-cert is for")
	fs.Var(&o.versions, "tls-versions", "`versions` to speak: TLSv1.2, TLSv1.3; default: both")
	fs.Var(&o.ciphers, "tls-ciphers", "cipher `suites` of TLS 1.2, by OpenSSL's names; default: Mozilla's intermediate ones")
	fs.StringVar(&o.redirectAddr, "http-redirect-addr", "", "`host:port` without TLS that sends everybody to the API; empty: none")
	fs.Var(&o.proxies, "trusted-proxies", "`addresses` or prefixes of what speaks TLS before this node: the last other hop of their X-Forwarded-For is where a request came from, for limits and the audit stream, and X-Forwarded-Proto says whether it came over TLS; default: none is believed")
	fs.BoolVar(&o.insecure, "insecure-listen", false, "let --http-addr be reachable beyond this machine without TLS: keys and secrets then cross the network in the clear")
}

// check reads the certificates, and refuses an open port without any.
func (o *publicOptions) check(httpAddr string) error {
	var bad error
	if o.trusted, bad = api.ParseProxies(o.proxies); bad != nil {
		return fmt.Errorf("--trusted-proxies: want addresses, or prefixes such as 10.0.0.0/8: %w", bad)
	}
	if o.cert == "" && o.key == "" {
		return o.checkPlain(httpAddr)
	}
	var faults []error
	both := func(cert, key, which string) {
		if (cert == "") != (key == "") {
			faults = append(faults, fmt.Errorf("--%s-cert and --%s-key go together", which, which))
		}
	}
	both(o.cert, o.key, "tls")
	both(o.docsCert, o.docsKey, "docs")
	if o.docsCert != "" && o.docsDomain == "" {
		faults = append(faults, errors.New("--docs-cert is for a name: give --docs-domain"))
	}
	if o.redirectAddr != "" {
		faults = append(faults, daemon.CheckAddr("http-redirect-addr", o.redirectAddr))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	pairs := []publictls.Pair{{Cert: o.cert, Key: o.key, Domain: o.apiDomain}}
	if o.docsCert != "" {
		pairs = append(pairs, publictls.Pair{Cert: o.docsCert, Key: o.docsKey, Domain: o.docsDomain})
	}
	var err error
	o.public, o.warnings, err = publictls.New(publictls.Config{Pairs: pairs, Versions: o.versions, Ciphers: o.ciphers})
	return err
}

func (o *publicOptions) checkPlain(httpAddr string) error {
	var faults []error
	if o.docsCert != "" || o.docsKey != "" || o.redirectAddr != "" {
		faults = append(faults, errors.New("--docs-cert, --docs-key and --http-redirect-addr take --tls-cert and --tls-key too"))
	}
	if daemon.CheckAddr("http-addr", httpAddr) == nil && !daemon.Loopback(httpAddr) && !o.insecure {
		faults = append(faults, fmt.Errorf("--http-addr %s is reachable beyond this machine, and without TLS keys and secrets would cross the network in the clear: "+
			"give a certificate with --tls-cert and --tls-key (one of a public authority, or your own), or listen on 127.0.0.1 behind something that speaks TLS; "+
			"--insecure-listen overrules this", httpAddr))
	}
	return errors.Join(faults...)
}
