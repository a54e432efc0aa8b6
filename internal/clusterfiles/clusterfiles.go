// Package clusterfiles writes and reads the files that a cluster's trust rests
// on: the certificate authority, the certificates of nodes, the gossip key and
// the seal key. Private ones are readable by their owner only; none is ever
// overwritten.
package clusterfiles

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ecs/internal/pki"
	"ecs/internal/seal"
)

// The files in a cluster's directory.
const (
	CACert    = "ca.crt"
	CAKey     = "ca.key" // whoever has it is the whole cluster; nodes do not need it
	GossipKey = "gossip.key"
	SealKey   = "seal.key" // control nodes only
	NodeCert  = "node.crt"
	NodeKey   = "node.key"
	// GossipRing is in a node's data directory: the gossip keys that the cluster has
	// given it, in place of GossipKey.
	GossipRing = "gossip-ring.json"
)

// Init makes the authority and the keys of a new cluster in dir, which it
// creates. It changes nothing when one of the files is there already.
func Init(dir, cluster string, now time.Time) (*pki.CA, error) {
	for _, name := range []string{CACert, CAKey, GossipKey, SealKey} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = fs.ErrExist
			}
			return nil, fmt.Errorf("make a cluster in %s: %s: %w", dir, name, err)
		}
	}
	ca, err := pki.NewCA(cluster, now)
	if err != nil {
		return nil, err
	}
	gossipKey, err := newKey()
	if err != nil {
		return nil, err
	}
	sealKey, err := newKey()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return ca, errors.Join(
		write(filepath.Join(dir, CACert), ca.CertPEM(), 0o644),
		write(filepath.Join(dir, CAKey), ca.KeyPEM(), 0o600),
		write(filepath.Join(dir, GossipKey), gossipKey, 0o600),
		write(filepath.Join(dir, SealKey), sealKey, 0o600),
	)
}

// OpenCA reads the authority that Init made in dir.
func OpenCA(dir string) (*pki.CA, error) {
	cert, err := os.ReadFile(filepath.Join(dir, CACert))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, CAKey))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	return pki.LoadCA(cert, key)
}

// IssueNode writes a certificate and key for id into dir, which it creates.
func IssueNode(ca *pki.CA, id pki.Identity, dir string, hosts []string, now time.Time, ttl time.Duration) error {
	cert, key, err := ca.Issue(id, hosts, now, ttl)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		write(filepath.Join(dir, NodeCert), cert, 0o644),
		write(filepath.Join(dir, NodeKey), key, 0o600),
	)
}

// Admission are the files of a node that was let in with a join token.
type Admission struct {
	Authority, Cert, Key []byte // PEM
	GossipKey, SealKey   []byte // SealKey: of control nodes alone
}

// Places are the paths of a node's files.
type Places struct {
	CA        string `json:"ca"`
	Cert      string `json:"cert"`
	Key       string `json:"key"`
	GossipKey string `json:"gossip_key"`
	SealKey   string `json:"seal_key,omitzero"` // of control nodes alone
}

// In gives the usual names in a directory.
func In(dir string) Places {
	return Places{CA: filepath.Join(dir, CACert), Cert: filepath.Join(dir, NodeCert), Key: filepath.Join(dir, NodeKey),
		GossipKey: filepath.Join(dir, GossipKey), SealKey: filepath.Join(dir, SealKey)}
}

// All gives those that there are, the certificate last: whoever waits for it finds
// the others.
func (p Places) All() []string {
	return slices.DeleteFunc([]string{p.CA, p.Key, p.GossipKey, p.SealKey, p.Cert}, func(path string) bool { return path == "" })
}

// Free reports the first file that is there already; none is ever overwritten.
func (p Places) Free() error {
	for _, path := range p.All() {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = fs.ErrExist
			}
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// WriteAdmission writes the files of an admission where they belong and makes the
// directories for that. It leaves none out and stops at the first that fails.
func WriteAdmission(p Places, a Admission) error {
	encoded := func(key []byte) []byte { return append(base64.StdEncoding.AppendEncode(nil, key), '\n') }
	type file struct {
		text []byte
		mode fs.FileMode
	}
	files := map[string]file{p.CA: {a.Authority, 0o644}, p.Key: {a.Key, 0o600}, p.GossipKey: {encoded(a.GossipKey), 0o600}, p.Cert: {a.Cert, 0o644}}
	if len(a.SealKey) > 0 {
		files[p.SealKey] = file{encoded(a.SealKey), 0o600}
	}
	for _, path := range p.All() {
		f, ok := files[path]
		if !ok {
			continue // the seal key, of an agent
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := write(path, f.text, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// ReadKey reads a key file: seal.KeySize bytes in base64, on one line.
func ReadKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != seal.KeySize {
		// Never with the content: it is a secret.
		return nil, fmt.Errorf("%s: want %d bytes in base64 on one line", file, seal.KeySize)
	}
	return key, nil
}

// WriteSecret makes a file for its owner only and has it on disk when it returns.
func WriteSecret(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func newKey() ([]byte, error) {
	key, err := seal.NewKey()
	if err != nil {
		return nil, err
	}
	return append(base64.StdEncoding.AppendEncode(nil, key), '\n'), nil
}

func write(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
