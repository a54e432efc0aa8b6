package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"ecs/internal/access"
)

// apr1 is "secret" as htpasswd writes it, computed with openssl passwd -apr1.
const apr1 = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"

// shaCrypt is "secret" of openssl passwd -5.
const shaCrypt = "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM."

func hashed(t *testing.T, secret string, cost int) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(secret), cost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func htpasswdFile(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".htpasswd")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rewrite replaces the file and lets the authenticator look at once.
func rewrite(t *testing.T, h *Htpasswd, lines ...string) {
	t.Helper()
	next := htpasswdFile(t, lines...)
	if err := os.Rename(next, h.path); err != nil {
		t.Fatal(err)
	}
	h.next = time.Time{}
}

// fileRing is a keyring over a file of these lines.
func fileRing(t *testing.T, lines ...string) *Keyring {
	t.Helper()
	h, err := NewHtpasswd(htpasswdFile(t, lines...))
	if err != nil {
		t.Fatal(err)
	}
	return NewKeyring(h, access.Operate, nil)
}

var fromAddresses atomic.Int64

// right asks each time from another address, so that guesses do not add up.
func right(k *Keyring, key, secret string) bool {
	from := fmt.Sprint("address ", fromAddresses.Add(1))
	who, err := k.Authenticate(context.Background(), Attempt{key, secret, from})
	return err == nil && who.Owner == key && who.Role == access.Operate
}

func TestHtpasswdKnowsItsHashes(t *testing.T) {
	h := fileRing(t, "# keys", "", "b:"+hashed(t, "secret", bcrypt.MinCost), "m:"+apr1, "  s:"+shaCrypt+" ")
	for _, key := range []string{"b", "m", "s"} {
		for range 2 { // once checked, once remembered
			if !right(h, key, "secret") {
				t.Errorf("%s: the right secret is refused", key)
			}
		}
		for _, wrong := range []string{"", "Secret", "secret ", "secretsecret", apr1} {
			if right(h, key, wrong) {
				t.Errorf("%s: %q is taken", key, wrong)
			}
		}
	}
	for _, pair := range [][2]string{{"", "secret"}, {"x", "secret"}, {"# keys", ""}, {"bsecret", ""}, {"b", "secret" + strings.Repeat("\x00", 70)}, {"b", strings.Repeat("x", 10_000)}} {
		if right(h, pair[0], pair[1]) {
			t.Errorf("%.20q is taken", pair)
		}
	}
}

// Whoever takes the last key out of the file means it.
func TestTheLastKeyCanBeTakenOutOfTheFile(t *testing.T) {
	k := fileRing(t, "b:"+hashed(t, "secret", bcrypt.MinCost))
	if !right(k, "b", "secret") {
		t.Fatal("the right secret is refused")
	}
	write := func(text string, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(k.file.path, []byte(text), 0o600), os.Chtimes(k.file.path, at, at)); err != nil {
			t.Fatal(err)
		}
		k.file.next = time.Time{}
	}
	emptied := time.Now()
	write("", emptied) // an editor empties it before it writes
	if !right(k, "b", "secret") && time.Since(emptied) < lookAgainAfter {
		t.Error("a file that is being written locks a key out")
	}
	write("k:plainpw\n", time.Now().Add(-time.Minute)) // a fault
	if !right(k, "b", "secret") {
		t.Error("a file that turned bad locks a key out")
	}
	write("# nobody\n", time.Now().Add(-2*time.Minute))
	if right(k, "b", "secret") {
		t.Error("a key that was taken out of the file opens the door")
	}
	if _, err := NewHtpasswd(k.file.path); err != nil {
		t.Errorf("a node does not start with a file that holds nobody: %v", err)
	}
}

func TestHtpasswdRefusesWeakLinesWithoutShowingThem(t *testing.T) {
	good := "b:" + hashed(t, "secret", bcrypt.MinCost)
	for name, line := range map[string]string{"plain text": "k:plainpw", "SHA-1": "k:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "no colon": "justaword",
		"no key": ":" + apr1, "cut bcrypt": "k:$2a$10$abc", "empty": "k:"} {
		_, err := NewHtpasswd(htpasswdFile(t, good, line))
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: got %v, want line 2 named", name, err)
		}
		if _, hash, _ := strings.Cut(line, ":"); err != nil && hash != "" && strings.Contains(err.Error(), hash) {
			t.Errorf("%s: got %v, which shows the hash", name, err)
		}
	}
	if _, err := NewHtpasswd(htpasswdFile(t, "k:plainpw")); err == nil {
		t.Error("a file without a key that can be used is taken")
	}
	if _, err := NewHtpasswd(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func TestChangedHtpasswdFileCountsAtOnce(t *testing.T) {
	k := fileRing(t, "a:"+hashed(t, "one", bcrypt.MinCost), "b:"+hashed(t, "two", bcrypt.MinCost))
	h := k.file
	var logged bytes.Buffer
	h.logTo(slog.New(slog.NewTextHandler(&logged, nil)))
	if !right(k, "a", "one") || !right(k, "b", "two") {
		t.Fatal("right secrets are refused")
	}
	rewrite(t, h, "a:"+hashed(t, "three", bcrypt.MinCost), "broken line")
	if right(k, "a", "one") || right(k, "b", "two") || !right(k, "a", "three") {
		t.Error("the old file still counts: a revoked secret must be forgotten")
	}
	rewrite(t, h, "nothing that can be used")
	if !right(k, "a", "three") {
		t.Error("a broken file locked everybody out")
	}
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	h.next = time.Time{}
	if !right(k, "a", "three") {
		t.Error("a missing file locked everybody out")
	}
	for _, want := range []string{"line 2", "not usable", "no such file"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("got log %s, want %q in it", logged.String(), want)
		}
	}
	if strings.Contains(logged.String(), "$2a$") {
		t.Errorf("the log shows a hash: %s", logged.String())
	}
}

// TestGuessingOccupiesOneCoreAtMost lets many guess at once: knowing callers
// are not held up, and waiting ends with the caller's patience.
func TestGuessingOccupiesOneCoreAtMost(t *testing.T) {
	h := fileRing(t, "a:"+hashed(t, "one", bcrypt.MinCost))
	if !right(h, "a", "one") {
		t.Fatal("the right secret is refused")
	}
	h.queue.wrong()
	if _, err := h.queue.enter(t.Context(), "somebody", "a"); err != nil { // whose guess is being checked
		t.Fatal(err)
	}
	if !right(h, "a", "one") {
		t.Error("a caller who is known waits behind a guess")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var guesses sync.WaitGroup
	for i := range 100 {
		guesses.Go(func() {
			if _, err := h.Authenticate(ctx, Attempt{"a", fmt.Sprint(i), fmt.Sprint(i)}); err == nil {
				t.Error("a guess is right that was never checked")
			}
		})
	}
	cancel()
	guesses.Wait()
	h.queue.leave()
	if right(h, "a", "two") || !right(h, "a", "one") {
		t.Error("the queue does not go on")
	}
}

// TestUnknownKeysCostWhatWrongSecretsCost counts the checks instead of timing
// them: every miss checks exactly one hash of the file.
func TestUnknownKeysCostWhatWrongSecretsCost(t *testing.T) {
	h := fileRing(t, "a:"+apr1, "b:"+apr1)
	var checked []string
	p := h.file.table.Load()
	for key, line := range p.users {
		p.users[key] = password{line.stored, func(secret string, rest func(time.Duration)) bool {
			checked = append(checked, key)
			return line.matches(secret, rest)
		}}
	}
	for i, key := range []string{"a", "b", "nobody", "nobody", "else", ""} {
		if right(h, key, "wrong") {
			t.Errorf("%q is taken", key)
		}
		if len(checked) != i+1 {
			t.Errorf("%q: %d hashes checked, want one each", key, len(checked)-i)
		}
	}
	if right(h, "nobody", "secret") {
		t.Error("an unknown key came in with somebody's secret")
	}
	if checked[2] != checked[3] {
		t.Error("one unknown key is checked against different hashes, which shows in its time")
	}
}

// testdata/htpasswd is as Debian's htpasswd (apache2-utils 2.4) made it: -B, -m
// and -5, the kinds that clients of the old service have.
func TestFilesOfDebiansHtpasswdCountAsTheyAre(t *testing.T) {
	h, err := NewHtpasswd("testdata/htpasswd")
	if err != nil {
		t.Fatal(err)
	}
	k := NewKeyring(h, access.Operate, nil)
	for key, secret := range map[string]string{"bcrypt": "right", "apr1": "right", "sha512": "right", "with space": "p:w d"} {
		if !right(k, key, secret) {
			t.Errorf("%s: the right secret is refused", key)
		}
		if right(k, key, secret+"x") {
			t.Errorf("%s: a wrong secret is taken", key)
		}
	}
}
