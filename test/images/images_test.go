package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestArchivesAreReproducibleAndWhole(t *testing.T) {
	entries := append(base(), file("bin/x", 0o755, []byte("body")), link("x", "bin/x"))
	first, err := pack(entries)
	if err != nil {
		t.Fatal(err)
	}
	second, err := pack(entries)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("packed again: got other bytes (%v), want the same", err)
	}
	found := map[string]string{}
	for in := tar.NewReader(bytes.NewReader(first)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(body) + h.Linkname
	}
	if found["bin/x"] != "body" || found["x"] != "bin/x" || found["etc/passwd"] == "" {
		t.Errorf("got %v, want the file, the link and the users", found)
	}
}
