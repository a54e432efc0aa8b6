package pki

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzLoadCA reads what could be in the files of an authority: one that is taken signs
// certificates that nodes of its cluster take, and none else.
func FuzzLoadCA(f *testing.F) {
	ca, other := newCA(f, "prod"), newCA(f, "other")
	f.Add(ca.CertPEM(), ca.KeyPEM())
	f.Add(ca.CertPEM(), other.KeyPEM())
	f.Add(append([]byte("text before\n"), ca.CertPEM()...), append(ca.KeyPEM(), other.KeyPEM()...))
	cert, key, err := ca.Issue(Identity{"prod", RoleAgent, "a1"}, nil, time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert, key) // a node's, not an authority's
	f.Fuzz(func(t *testing.T, certPEM, keyPEM []byte) {
		ca, err := LoadCA(certPEM, keyPEM)
		if err != nil {
			return
		}
		id := Identity{ca.Cluster(), RoleAgent, "a1"}
		cert, key, err := ca.Issue(id, nil, time.Now(), time.Hour)
		if err != nil {
			t.Fatalf("an authority that was taken can't sign: %v", err)
		}
		if _, err := NewNode(ca.CertPEM(), cert, key); err != nil && time.Now().Before(ca.cert.NotAfter) {
			t.Errorf("what it signed is not taken: %v", err)
		}
	})
}

// FuzzLoadNode reads what could be in a node's files: what is taken carries an
// identity of the authority's cluster, and was signed by it.
func FuzzLoadNode(f *testing.F) {
	ca, foreign := newCA(f, "prod"), newCA(f, "prod")
	for _, by := range []*CA{ca, foreign} {
		cert, key, err := by.Issue(Identity{"prod", RoleControl, "c1"}, []string{"localhost"}, time.Now(), time.Hour)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ca.CertPEM(), cert, key)
		f.Add(ca.CertPEM(), append(bytes.Clone(cert), ca.CertPEM()...), key)
	}
	f.Add(ca.CertPEM(), ca.CertPEM(), ca.KeyPEM())
	f.Fuzz(func(t *testing.T, caPEM, certPEM, keyPEM []byte) {
		dir := t.TempDir()
		var files [3]string
		for i, text := range [][]byte{caPEM, certPEM, keyPEM} {
			files[i] = filepath.Join(dir, string(rune('a'+i)))
			if err := os.WriteFile(files[i], text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		id, idErr := IdentityInFile(files[1])
		n, err := LoadNode(files[0], files[1], files[2])
		if err != nil {
			return
		}
		if idErr != nil || n.Identity() != id || id.Validate() != nil {
			t.Errorf("it is taken for %+v, its file is of %+v, %v", n.Identity(), id, idErr)
		}
		leaf := n.cert.Load().Leaf
		root, err := parseCert(caPEM)
		if err != nil {
			t.Fatal(err)
		}
		if err := leaf.CheckSignatureFrom(root); err != nil {
			t.Errorf("another authority signed it: %v", err)
		}
	})
}
