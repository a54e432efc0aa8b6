package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// An archive is a snapshot as it is kept outside of a cluster: a line that says
// what it is, the term in 8 bytes, big endian, what Write writes, and the SHA-256
// of all that. The first version had no term.
const (
	archiveHead      = "ecs snapshot 2\n"
	archiveHeadFirst = "ecs snapshot 1\n"
)

// ErrArchive says that a file is no archive, or not a whole one.
var ErrArchive = errors.New("not a whole snapshot of a cluster")

// Archive writes the record with the term that its cluster was in, and a checksum.
func (sn *Snapshot) Archive(w io.Writer, term uint64) error {
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	if _, err := both.Write(binary.BigEndian.AppendUint64([]byte(archiveHead), term)); err != nil {
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

// OpenArchive gives what Write wrote into an archive, and the term, 0 where it has
// none. The last read fails with ErrArchive, instead of io.EOF, when the checksum is
// wrong.
func OpenArchive(r io.Reader) (record io.Reader, term uint64, err error) {
	a := &archive{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	head := make([]byte, len(archiveHead))
	if _, err := io.ReadFull(a.in, head); err != nil || string(head) != archiveHead && string(head) != archiveHeadFirst {
		return nil, 0, fmt.Errorf("%w: it does not begin as one of this version", ErrArchive)
	}
	a.sum.Write(head)
	if string(head) == archiveHead {
		number := make([]byte, 8)
		if _, err := io.ReadFull(a.in, number); err != nil {
			return nil, 0, fmt.Errorf("%w: it is cut short", ErrArchive)
		}
		a.sum.Write(number)
		term = binary.BigEndian.Uint64(number)
	}
	return a, term, nil
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
