package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// An archive is a snapshot as it is kept outside of a cluster: a line that says
// what it is, what Write writes, and the SHA-256 of both.
const archiveHead = "ecs snapshot 1\n"

// ErrArchive says that a file is no archive, or not a whole one.
var ErrArchive = errors.New("not a whole snapshot of a cluster")

// Archive writes the record with its checksum.
func (sn *Snapshot) Archive(w io.Writer) error {
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	if _, err := io.WriteString(both, archiveHead); err != nil {
		return fmt.Errorf("write an archive: %w", err)
	}
	if err := sn.Write(both); err != nil {
		return err
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write an archive: %w", err)
	}
	return nil
}

// OpenArchive gives what Write wrote into an archive. Its last read fails with
// ErrArchive, instead of io.EOF, when the checksum is wrong.
func OpenArchive(r io.Reader) (io.Reader, error) {
	head := make([]byte, len(archiveHead))
	if _, err := io.ReadFull(r, head); err != nil || string(head) != archiveHead {
		return nil, fmt.Errorf("%w: it does not begin as one of this version", ErrArchive)
	}
	a := &archive{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	a.sum.Write(head)
	return a, nil
}

// archive reads everything but the checksum, and checks that.
type archive struct {
	in  *bufio.Reader
	sum hash.Hash
}

// Read implements io.Reader.
func (a *archive) Read(p []byte) (int, error) {
	ahead, err := a.in.Peek(a.in.Size())
	left := len(ahead) - sha256.Size
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return 0, err
	case left < 0:
		return 0, fmt.Errorf("%w: it is cut short", ErrArchive)
	case left == 0 && err == nil:
		return 0, io.ErrNoProgress // cannot be: the buffer is larger
	case left == 0:
		if !bytes.Equal(ahead, a.sum.Sum(nil)) {
			return 0, fmt.Errorf("%w: its checksum is wrong", ErrArchive)
		}
		return 0, io.EOF
	}
	n, err := a.in.Read(p[:min(len(p), left)])
	a.sum.Write(p[:n])
	return n, err
}
