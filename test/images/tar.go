package images

import (
	"archive/tar"
	"bytes"
	"time"
)

// entry is one file of an image.
type entry struct {
	header tar.Header
	body   []byte
}

func file(name string, mode int64, body []byte) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body}
}

func link(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}, nil}
}

// base is what every image has: the usual directories and users.
func base() []entry {
	return []entry{
		dir("bin", 0o755), dir("etc", 0o755), dir("root", 0o700), dir("srv", 0o755), dir("tmp", 0o1777), dir("var", 0o755),
		file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")),
		file("etc/group", 0o644, []byte("root:x:0:\nusers:x:100:nobody\nnobody:x:65534:\n")),
	}
}

// pack makes the archive. The same entries always give the same bytes.
func pack(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		e.header.ModTime = time.Unix(0, 0)
		e.header.Format = tar.FormatUSTAR
		if err := w.WriteHeader(&e.header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
