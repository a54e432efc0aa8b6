package publictls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pairFiles writes a certificate for a name into dir.
func pairFiles(t testing.TB, dir, name string, end time.Time) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key"), Domain: name}
	for file, block := range map[string]*pem.Block{p.Cert: {Type: "CERTIFICATE", Bytes: der}, p.Key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// shake makes a handshake and gives the server's certificate.
func shake(t *testing.T, server *tls.Config, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go tls.Server(a, server).Handshake()
	client.InsecureSkipVerify = true
	conn := tls.Client(b, client)
	err := conn.Handshake()
	return conn.ConnectionState(), err
}

func TestCertificateIsChosenByName(t *testing.T) {
	dir, end := t.TempDir(), time.Now().Add(time.Hour)
	s, warnings, err := New(Config{Pairs: []Pair{pairFiles(t, dir, "api.example.org", end), pairFiles(t, dir, "docs.example.org", end.Add(-time.Minute))}})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	for asked, want := range map[string]string{"api.example.org": "api.example.org", "docs.example.org": "docs.example.org",
		"DOCS.example.org": "docs.example.org", "other": "api.example.org", "": "api.example.org"} {
		state, err := shake(t, s.TLS(), &tls.Config{ServerName: asked})
		if err != nil {
			t.Fatal(err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%q: got %s, want %s", asked, got, want)
		}
	}
	if got := s.NotAfter(); got.After(end.Add(-30 * time.Second)) {
		t.Errorf("got %s, want the earlier end", got)
	}
}

func TestChangedFilesCountWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	p := pairFiles(t, dir, "api", time.Now().Add(time.Hour))
	s, _, err := New(Config{Pairs: []Pair{p}})
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	serial := func() string {
		state, err := shake(t, s.TLS(), &tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	// Half of a change: the new certificate with the old key.
	oldKey, err := os.ReadFile(p.Key)
	if err != nil {
		t.Fatal(err)
	}
	pairFiles(t, dir, "api", time.Now().Add(2*time.Hour))
	newKey, err := os.ReadFile(p.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Key, oldKey, 0o600); err != nil {
		t.Fatal(err)
	}
	told := s.look(log, "")
	told = s.look(log, told)
	if serial() != first || strings.Count(logged.String(), "not usable") != 1 {
		t.Errorf("got log %s, want the last good pair in use and one word of it", logged.String())
	}
	if err := os.WriteFile(p.Key, newKey, 0o600); err != nil {
		t.Fatal(err)
	}
	if told = s.look(log, told); told != "" || serial() == first || !strings.Contains(logged.String(), "read anew") {
		t.Errorf("the new pair is not in use: %s", logged.String())
	}
	if err := os.Remove(p.Cert); err != nil {
		t.Fatal(err)
	}
	if s.look(log, ""); serial() == first {
		t.Error("a missing file put an old pair in use")
	}
}

func TestSettingsAreMozillasIntermediate(t *testing.T) {
	s, _, err := New(Config{Pairs: []Pair{pairFiles(t, t.TempDir(), "api", time.Now().Add(time.Hour))}})
	if err != nil {
		t.Fatal(err)
	}
	c := s.TLS()
	if c.MinVersion != tls.VersionTLS12 || c.MaxVersion != tls.VersionTLS13 || len(c.CipherSuites) != 6 || c.CurvePreferences != nil {
		t.Errorf("got %+v", c)
	}
	for _, old := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if _, err := shake(t, s.TLS(), &tls.Config{MinVersion: old, MaxVersion: old}); err == nil {
			t.Errorf("a client of version %x comes in", old)
		}
	}
	if _, err := shake(t, s.TLS(), &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}); err == nil {
		t.Error("a CBC suite is taken")
	}
}

func TestVersionsAndCiphersAreHonoured(t *testing.T) {
	pair := pairFiles(t, t.TempDir(), "api", time.Now().Add(time.Hour))
	make := func(versions, ciphers string) (*Source, []string, error) {
		return New(Config{Pairs: []Pair{pair}, Versions: []string{versions}, Ciphers: []string{ciphers}})
	}
	s, warnings, err := make("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-SHA384:TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:!MD5:TLS_AES_128_GCM_SHA256")
	if err != nil || len(warnings) != 2 || !strings.Contains(warnings[0], "ECDHE-ECDSA-AES256-SHA384") {
		t.Fatalf("got %v, %v", warnings, err)
	}
	if want := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}; !slices.Equal(s.suites, want) || s.max != tls.VersionTLS12 {
		t.Errorf("got %v up to %x, want %v", s.suites, s.max, want)
	}
	if s, _, err := make("TLSv1.2, TLSv1.3", ""); err != nil || s.min != tls.VersionTLS12 || s.max != tls.VersionTLS13 {
		t.Errorf("got %v", err)
	}
	for _, bad := range [][2]string{{"TLSv1.1 TLSv1.2", ""}, {"SSLv3", ""}, {"1.9", ""}, {",", ""}, {"", "nonsense"}, {"", "ECDHE-RSA-AES256-SHA384"}, {"", "ECDHE-RSA-CHACHA20-POLY1305"}} {
		if _, _, err := make(bad[0], bad[1]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestEveryFaultOfTheFilesIsNamed(t *testing.T) {
	dir := t.TempDir()
	a, b := pairFiles(t, dir, "a", time.Now().Add(time.Hour)), pairFiles(t, dir, "b", time.Now().Add(time.Hour))
	_, _, err := New(Config{Pairs: []Pair{{Cert: a.Cert, Key: b.Key}, {Cert: filepath.Join(dir, "none"), Key: a.Key}}, Versions: []string{"TLSv1"}})
	if err == nil || !strings.Contains(err.Error(), a.Cert) || !strings.Contains(err.Error(), "none") || !strings.Contains(err.Error(), "not safe") {
		t.Errorf("got %v", err)
	}
	if _, _, err := New(Config{}); err == nil {
		t.Error("no certificate at all is taken")
	}
}

// FuzzSettings: whatever the lists are, what is taken is safe.
func FuzzSettings(f *testing.F) {
	f.Add("TLSv1.2 TLSv1.3", "ECDHE-RSA-AES128-GCM-SHA256:!MD5")
	f.Add("SSLv3", "DES-CBC3-SHA")
	f.Fuzz(func(t *testing.T, list, ciphers string) {
		if low, high, err := versions([]string{list}); err == nil && (low < tls.VersionTLS12 || high < low) {
			t.Errorf("got versions %x to %x", low, high)
		}
		ids, _, err := suites([]string{ciphers})
		for _, id := range ids {
			if err == nil && suiteOf(tls.CipherSuiteName(id)) != id {
				t.Errorf("got suite %x", id)
			}
		}
	})
}

// TestAChainThatClientsCanNotReadIsRefused: found by FuzzPair.
func TestAChainThatClientsCanNotReadIsRefused(t *testing.T) {
	p := pairFiles(t, t.TempDir(), "a.example", time.Now().Add(time.Hour))
	text, err := os.ReadFile(p.Cert)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	// The last byte of the point: the one before the extensions' tag.
	at := bytes.Index(block.Bytes, []byte{0xa3, 0x18, 0x30, 0x16})
	block.Bytes[at-1] ^= 1
	if err := os.WriteFile(p.Cert, append(text, pem.EncodeToMemory(block)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := New(Config{Pairs: []Pair{p}}); err == nil || !strings.Contains(err.Error(), "certificate 2 of the chain") {
		t.Errorf("got %v, want to hear of the second certificate", err)
	}
}

// FuzzPair reads what could be in the files of a public certificate: what is taken can
// be shown to clients.
func FuzzPair(f *testing.F) {
	good, other := pairFiles(f, f.TempDir(), "a.example", time.Now().Add(time.Hour)), pairFiles(f, f.TempDir(), "b.example", time.Now().Add(time.Hour))
	for _, p := range []Pair{good, other, {Cert: good.Cert, Key: other.Key}} {
		cert, err := os.ReadFile(p.Cert)
		if err != nil {
			f.Fatal(err)
		}
		key, err := os.ReadFile(p.Key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(cert, key)
		f.Add(append(bytes.Clone(cert), cert...), append([]byte("text\n"), key...))
	}
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		dir := t.TempDir()
		p := Pair{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key")}
		for file, text := range map[string][]byte{p.Cert: cert, p.Key: key} {
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, _, err := New(Config{Pairs: []Pair{p}})
		if err != nil {
			return
		}
		state, err := shake(t, s.TLS(), &tls.Config{})
		if err != nil || !state.PeerCertificates[0].NotAfter.Equal(s.NotAfter()) {
			t.Errorf("a pair that was taken is not shown: %v", err)
		}
	})
}
