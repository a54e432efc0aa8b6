package seal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
)

func newBox(t testing.TB) *Box {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	box, err := NewBox(key)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func mustSeal(t testing.TB, b *Box, plain, bound string) []byte {
	t.Helper()
	sealed, err := b.Seal([]byte(plain), []byte(bound))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealedBytesOpenWithTheirBound(t *testing.T) {
	box := newBox(t)
	for _, plain := range []string{"", "s3cret", string(make([]byte, 100_000))} {
		sealed := mustSeal(t, box, plain, "task-1")
		got, err := box.Open(sealed, []byte("task-1"))
		if err != nil || string(got) != plain {
			t.Errorf("open of %d bytes: got %d bytes and %v, want them back", len(plain), len(got), err)
		}
	}
}

func TestAnotherNodeWithTheKeyOpens(t *testing.T) {
	key, _ := NewKey()
	one, _ := NewBox(key)
	two, _ := NewBox(bytes.Clone(key))
	got, err := two.Open(mustSeal(t, one, "s3cret", "t"), []byte("t"))
	if err != nil || string(got) != "s3cret" {
		t.Errorf("got %q and %v, want s3cret", got, err)
	}
	if !bytes.Equal(one.MAC([]byte("body")), two.MAC([]byte("body"))) {
		t.Error("got two fingerprints of one body under one key, want one")
	}
}

func TestWrongBoundKeyOrBytesDoNotOpen(t *testing.T) {
	box := newBox(t)
	sealed := mustSeal(t, box, "s3cret", "task-1")
	for name, open := range map[string]func() ([]byte, error){
		"another task": func() ([]byte, error) { return box.Open(sealed, []byte("task-2")) },
		"no bound":     func() ([]byte, error) { return box.Open(sealed, nil) },
		"another key":  func() ([]byte, error) { return newBox(t).Open(sealed, []byte("task-1")) },
		"empty":        func() ([]byte, error) { return box.Open(nil, []byte("task-1")) },
		"plain text":   func() ([]byte, error) { return box.Open([]byte("s3cret"), []byte("task-1")) },
	} {
		if got, err := open(); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %q and %v, want ErrOpen", name, got, err)
		}
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := box.Open(damaged, []byte("task-1")); !errors.Is(err, ErrOpen) {
			t.Fatalf("byte %d flipped: got %v, want ErrOpen", i, err)
		}
	}
	for n := range sealed {
		if _, err := box.Open(sealed[:n], []byte("task-1")); !errors.Is(err, ErrOpen) {
			t.Fatalf("cut to %d bytes: got %v, want ErrOpen", n, err)
		}
	}
}

func TestSealingTwiceDiffersAndHidesThePlainText(t *testing.T) {
	box := newBox(t)
	plain := "a credential that is long enough to search for"
	one, two := mustSeal(t, box, plain, "t"), mustSeal(t, box, plain, "t")
	if bytes.Equal(one, two) {
		t.Error("got the same bytes twice, want different ones")
	}
	if bytes.Contains(one, []byte("credential")) {
		t.Error("the plain text is in the sealed bytes")
	}
	sum := sha256.Sum256([]byte(plain))
	if bytes.Equal(box.MAC([]byte(plain)), sum[:]) || bytes.Equal(box.MAC([]byte(plain)), newBox(t).MAC([]byte(plain))) {
		t.Error("the fingerprint does not depend on the key")
	}
}

func TestKeyOfAnotherSizeIsRefused(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := NewBox(make([]byte, n)); err == nil {
			t.Errorf("key of %d bytes: got no error", n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	box := newBox(f)
	good := mustSeal(f, box, "s3cret", "t")
	f.Add(good)
	f.Add([]byte{version1})
	f.Add(make([]byte, overhead))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := box.Open(sealed, []byte("t"))
		if err == nil && !bytes.Equal(sealed, good) {
			t.Errorf("bytes nobody sealed opened as %q", got)
		}
	})
}
