package clusterfiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestAppendedKeysCanBeCheckedAndOldOnesStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".htpasswd")
	const old = "old:$apr1$x$y" // as edited by hand: no newline at the end
	if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	one, two := NewCredentials(), NewCredentials()
	if err := AppendHtpasswd(file, one, two); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 3 || lines[0] != old {
		t.Fatalf("got lines %q, want the old one and two more", lines)
	}
	for i, c := range []Credentials{one, two} {
		key, hash, _ := strings.Cut(lines[i+1], ":")
		if key != c.Key {
			t.Errorf("line %d: got key %s, want %s", i+1, key, c.Key)
		}
		if err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(c.Secret)); err != nil {
			t.Errorf("line %d: the hash is not that of the secret: %v", i+1, err)
		}
	}
}

func TestNewFileIsItsOwnersOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".htpasswd")
	if err := AppendHtpasswd(file, NewCredentials()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 600", info.Mode().Perm(), err)
	}
}

func TestCredentialsDifferAndHave128BitsEach(t *testing.T) {
	a, b := NewCredentials(), NewCredentials()
	if a == b || a.Key == a.Secret || len(a.Key) != 32 || len(a.Secret) != 32 {
		t.Errorf("got %v and %v, want 32 hex digits each, all different", a, b)
	}
}
