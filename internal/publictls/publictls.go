// Package publictls is TLS on the port that the world sees: certificates from
// files that may change while the process runs, chosen by the name that a client
// asks for, with Mozilla's intermediate settings unless others are given.
package publictls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// lookEvery is how often the files are looked at for changes.
const lookEvery = 10 * time.Second

// Pair are the files of one certificate, with its chain, and its key, in PEM.
type Pair struct {
	Cert, Key string
	// Domain is the name that clients ask for to get this pair; of the first
	// pair it is not looked at: it is for all other names.
	Domain string
}

// Config says what to serve. Versions and Ciphers are as in nginx and OpenSSL:
// TLSv1.2, ECDHE-RSA-AES128-GCM-SHA256; empty: Mozilla's intermediate.
type Config struct {
	Pairs    []Pair
	Versions []string
	Ciphers  []string
}

// Source gives certificates to handshakes. It is safe for concurrent use.
type Source struct {
	pairs    []*pair
	min, max uint16
	suites   []uint16
}

// pair is one certificate as it was last read well.
type pair struct {
	Pair
	now atomic.Pointer[loaded]
}

type loaded struct {
	cert            tls.Certificate
	certPEM, keyPEM []byte
	names           string
}

// New reads the files. warnings are what of the settings was left out. An
// expired certificate is taken, so that the process can say so.
func New(cfg Config) (s *Source, warnings []string, err error) {
	s = new(Source)
	var faults []error
	if len(cfg.Pairs) == 0 {
		faults = append(faults, errors.New("no certificate is given"))
	}
	for _, p := range cfg.Pairs {
		next := &pair{Pair: p}
		if _, err := next.read(); err != nil {
			faults = append(faults, err)
		}
		s.pairs = append(s.pairs, next)
	}
	if s.min, s.max, err = versions(cfg.Versions); err != nil {
		faults = append(faults, err)
	}
	if s.suites, warnings, err = suites(cfg.Ciphers); err != nil {
		faults = append(faults, err)
	}
	return s, warnings, errors.Join(faults...)
}

// read takes the files if they changed and belong together.
func (p *pair) read() (changed bool, err error) {
	cert, err := os.ReadFile(p.Cert)
	if err != nil {
		return false, fmt.Errorf("read the public certificate: %w", err)
	}
	key, err := os.ReadFile(p.Key)
	if err != nil {
		return false, fmt.Errorf("read the public certificate's key: %w", err)
	}
	if old := p.now.Load(); old != nil && bytes.Equal(old.certPEM, cert) && bytes.Equal(old.keyPEM, key) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("use %s with %s: %w", p.Cert, p.Key, err)
	}
	// Only the first of them was parsed, and clients take none of a chain that they
	// can't parse all of.
	for i, der := range pair.Certificate {
		if _, err := x509.ParseCertificate(der); err != nil {
			return false, fmt.Errorf("use %s: certificate %d of the chain: %w", p.Cert, i+1, err)
		}
	}
	p.now.Store(&loaded{cert: pair, certPEM: cert, keyPEM: key, names: strings.Join(pair.Leaf.DNSNames, " ")})
	return true, nil
}

// TLS makes a server's configuration. HTTP/2 is for http.Server to add.
func (s *Source) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:   s.min,
		MaxVersion:   s.max,
		CipherSuites: s.suites, // of TLS 1.2; those of 1.3 can't be chosen
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &s.choose(hello.ServerName).now.Load().cert, nil
		},
	}
}

// choose finds the pair for a name: the one whose domain it is, else the first.
func (s *Source) choose(name string) *pair {
	for _, p := range s.pairs[1:] {
		if p.Domain != "" && strings.EqualFold(p.Domain, name) {
			return p
		}
	}
	return s.pairs[0]
}

// NotAfter is when the first of the certificates expires.
func (s *Source) NotAfter() time.Time {
	first := s.pairs[0].now.Load().cert.Leaf.NotAfter
	for _, p := range s.pairs[1:] {
		if end := p.now.Load().cert.Leaf.NotAfter; end.Before(first) {
			first = end
		}
	}
	return first
}

// Run takes changed files up until ctx ends. Files that do not belong together,
// as in the middle of being replaced, leave the last good pair in use.
func (s *Source) Run(ctx context.Context, log *slog.Logger) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var told string
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		told = s.look(log, told)
	}
}

// look reads all pairs again. A fault is told once, not every time.
func (s *Source) look(log *slog.Logger, told string) string {
	var faults []error
	for _, p := range s.pairs {
		changed, err := p.read()
		switch {
		case err != nil:
			faults = append(faults, err)
		case changed:
			n := p.now.Load()
			log.Info("public certificate read anew", "path", p.Cert, "names", n.names, "expires", n.cert.Leaf.NotAfter)
		}
	}
	err := errors.Join(faults...)
	if err == nil {
		return ""
	}
	if text := err.Error(); text != told {
		log.Error("public certificate not usable, the last good one stays in use", "err", err)
		return text
	}
	return told
}

// versions reads a list like "TLSv1.2 TLSv1.3".
func versions(names []string) (low, high uint16, err error) {
	if len(names) == 0 {
		return tls.VersionTLS12, tls.VersionTLS13, nil
	}
	var known []uint16
	for _, name := range split(names) {
		switch strings.ToLower(name) {
		case "tlsv1.2":
			known = append(known, tls.VersionTLS12)
		case "tlsv1.3":
			known = append(known, tls.VersionTLS13)
		case "sslv2", "sslv3", "tlsv1", "tlsv1.0", "tlsv1.1":
			return 0, 0, fmt.Errorf("TLS version %s is not safe any more: use TLSv1.2 and TLSv1.3", name)
		default:
			return 0, 0, fmt.Errorf("TLS version %q: want TLSv1.2 or TLSv1.3", name)
		}
	}
	if len(known) == 0 {
		return 0, 0, errors.New("no TLS version is given: use TLSv1.2 and TLSv1.3")
	}
	return slices.Min(known), slices.Max(known), nil
}

// intermediate is Mozilla's list of TLS 1.2 suites, guideline 6.0, by OpenSSL's
// names. Those of TLS 1.3 are always on.
var intermediate = []struct {
	name  string
	suite uint16
}{
	{"ECDHE-ECDSA-AES128-GCM-SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-RSA-AES128-GCM-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-RSA-AES256-GCM-SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	{"ECDHE-RSA-CHACHA20-POLY1305", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
}

// suites reads a list of cipher suites. Names of suites that Go does not have or
// that are weak are left out, and told; one that is no name at all is an error.
func suites(names []string) (ids []uint16, warnings []string, err error) {
	chosen := split(names)
	if len(chosen) == 0 {
		for _, known := range intermediate {
			ids = append(ids, known.suite)
		}
		return ids, nil, nil
	}
	for _, name := range chosen {
		switch id := suiteOf(name); {
		case id != 0 && !slices.Contains(ids, id):
			ids = append(ids, id)
		case id != 0, strings.HasPrefix(name, "TLS_AES_"), strings.HasPrefix(name, "TLS_CHACHA20_"):
			// TLS 1.3: always there
		case looksLikeSuite(name):
			warnings = append(warnings, fmt.Sprintf("cipher suite %s is weak or unknown here and left out", name))
		default:
			return nil, nil, fmt.Errorf("cipher suite %q: want names like %s", name, intermediate[0].name)
		}
	}
	if !slices.Contains(ids, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) && !slices.Contains(ids, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) {
		return nil, warnings, fmt.Errorf("cipher suites: HTTP/2 takes %s or %s among them", intermediate[0].name, intermediate[1].name)
	}
	return ids, warnings, nil
}

func suiteOf(name string) uint16 {
	for _, known := range intermediate {
		if known.name == name || tls.CipherSuiteName(known.suite) == name {
			return known.suite
		}
	}
	return 0
}

// looksLikeSuite tells OpenSSL's suite names and exclusions from slips.
func looksLikeSuite(name string) bool {
	return strings.HasPrefix(name, "!") || strings.Count(name, "-") >= 1 && strings.ToUpper(name) == name
}

// split takes lists with any of OpenSSL's separators.
func split(list []string) []string {
	return strings.FieldsFunc(strings.Join(list, " "), func(r rune) bool { return r == ' ' || r == ':' || r == ',' })
}
