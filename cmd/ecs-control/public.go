package main

import (
	"errors"
	"flag"
	"fmt"

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

	public   *publictls.Source // nil: no TLS
	warnings []string
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
	fs.BoolVar(&o.insecure, "insecure-listen", false, "let --http-addr be reachable beyond this machine without TLS: keys and secrets then cross the network in the clear")
}

// check reads the certificates, and refuses an open port without any.
func (o *publicOptions) check(httpAddr string) error {
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
