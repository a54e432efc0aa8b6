package api

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// matchesBcrypt says of every hash what the library says.
func TestSlicedBcryptIsBcrypt(t *testing.T) {
	for _, secret := range []string{"", "a", "right", "pässwörd\x00\xff", strings.Repeat("x", maxBcrypt)} {
		made, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range []string{"$2a$", "$2b$", "$2y$"} {
			hash := version + string(made[4:])
			for given, want := range map[string]bool{secret: true, secret + "x": false, "wrong": false} {
				if len(given) > maxBcrypt {
					want = false
				}
				if got := matchesBcrypt(hash, given, time.Sleep); got != want {
					t.Errorf("%q against the hash of %q: got %v", given, secret, got)
				}
			}
		}
	}
	for _, bad := range []string{"", "$2a$", "$2a$04$short", "$2a$99$" + strings.Repeat("x", 53), nobodysHash + "x", nobodysHash[:59]} {
		if matchesBcrypt(bad, "", time.Sleep) {
			t.Errorf("%q matches", bad)
		}
	}
}

func FuzzBcrypt(f *testing.F) {
	f.Add("$2a$04$......................................................", "x")
	f.Add("$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e", "U*U")
	f.Fuzz(func(t *testing.T, hash, secret string) {
		if cost, err := bcrypt.Cost([]byte(hash)); err == nil && cost > 5 {
			return // too slow to try many
		}
		want := len(secret) <= maxBcrypt && bcrypt.CompareHashAndPassword([]byte(hash), []byte(secret)) == nil
		if got := matchesBcrypt(hash, secret, time.Sleep); got != want {
			t.Errorf("%q against %q: got %v, want %v", secret, hash, got, want)
		}
	})
}
