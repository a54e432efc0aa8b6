// Package collect makes one tar of the files that a program left in its
// container.
//
// What is in a container is the program's to decide: names, kinds, sizes and
// numbers are anything at all. So every header is made anew of the little that
// is wanted of it, nothing is written before there is room for a whole entry,
// and no more entries are looked at than may be kept. The package starts no
// goroutine and touches no file itself.
package collect

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
	"time"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

const (
	block = 512 // what everything in a tar is padded to
	// trailer ends a tar.
	trailer     = 2 * block
	permissions = 0o7777
)

// Source is a container whose program has ended: see runtime.Container.
type Source interface {
	CopyOut(ctx context.Context, path string) (io.ReadCloser, error)
}

// Sink takes the tar. Reserve is asked before anything is written, for the whole
// entry; false is the end of the tar, which is good for nothing then.
type Sink interface {
	io.Writer
	Reserve(n int64) bool
}

// Limits bound the tar.
type Limits struct {
	Bytes   int64
	Entries int
}

// DefaultLimits are those of a task.
func DefaultLimits() Limits {
	return Limits{Bytes: task.MaxOutputsBytes, Entries: task.MaxOutputsEntries}
}

// ErrNoRoom: the sink has no room, whatever the limits allow.
var ErrNoRoom = errors.New("the node has no room for them: its spool is at its limit and everything in it is live")

// Run writes everything that lies at the paths to one tar: files, directories
// and links, each under its path without the leading slash. Devices and pipes are
// left out, and with them their other names: a hard link to what is not in the
// tar. What is over the limits ends the tar at a whole entry; a path that is not
// there is named in the answer.
//
// An error, of the source, the sink or ctx, says that the tar is good for
// nothing.
func Run(ctx context.Context, from Source, paths []string, to Sink, l Limits) (task.Outputs, error) {
	c := &collector{from: from, to: to, limits: l, sum: sha256.New(), linkable: make(map[[sha256.Size]byte]bool)}
	if err := c.reserve(trailer); err != nil {
		return task.Outputs{}, err
	}
	for i, p := range paths {
		err := c.add(ctx, p)
		switch {
		case errors.Is(err, runtime.ErrNoPath):
			c.done.Missing = append(c.done.Missing, i)
		case err != nil && ctx.Err() != nil:
			return task.Outputs{}, fmt.Errorf("collect %s: %w", p, context.Cause(ctx))
		case err != nil:
			return task.Outputs{}, fmt.Errorf("collect %s: %w", p, err)
		}
	}
	if err := c.write(make([]byte, trailer)); err != nil {
		return task.Outputs{}, err
	}
	c.done.SHA256 = [sha256.Size]byte(c.sum.Sum(nil))
	return c.done, nil
}

type collector struct {
	from   Source
	to     Sink
	limits Limits
	sum    hash.Hash
	done   task.Outputs
	// seen counts entries, also those that are left out; reserved bytes.
	seen     int
	reserved int64
	// linkable has the hashed names of the entries that a hard link may lead to,
	// hashed because a name may be long and there may be limits.Entries.
	linkable map[[sha256.Size]byte]bool
}

// add puts what lies at p into the tar. Once that is cut it only finds out
// whether anything is there.
func (c *collector) add(ctx context.Context, p string) error {
	content, err := c.from.CopyOut(ctx, p)
	if err != nil {
		return err
	}
	defer content.Close() // what it says then is of no use any more
	in := tar.NewReader(content)
	for !c.done.Truncated {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.seen++; c.seen > c.limits.Entries {
			c.done.Truncated = true
			return nil
		}
		if plain := rewrite(h, p); plain != nil && c.leads(plain) {
			if err := c.entry(plain, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewrite gives a header with nothing in it but what is kept, or nil for what is
// left out. Names that do not lie at p can't be the program's.
func rewrite(h *tar.Header, p string) *tar.Header {
	name, ok := rename(h.Name, p)
	if !ok {
		return nil
	}
	plain := &tar.Header{Typeflag: h.Typeflag, Name: name, Mode: h.Mode & permissions, Uid: h.Uid, Gid: h.Gid,
		ModTime: h.ModTime.Truncate(time.Second)}
	switch h.Typeflag {
	case tar.TypeReg:
		plain.Size = h.Size
	case tar.TypeDir:
		plain.Name += "/"
	case tar.TypeSymlink:
		plain.Linkname = h.Linkname
	case tar.TypeLink:
		if plain.Linkname, ok = rename(h.Linkname, p); !ok {
			return nil
		}
	default:
		return nil
	}
	return plain
}

// rename puts p, without its leading slash, in place of its last element.
func rename(name, p string) (string, bool) {
	name = path.Clean(name)
	rest, ok := strings.CutPrefix(name, path.Base(p))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return p[1:] + rest, true
}

// leads reports whether the entry is none that dangles: a hard link comes after
// what it leads to.
func (c *collector) leads(h *tar.Header) bool {
	return h.Typeflag != tar.TypeLink || c.linkable[sha256.Sum256([]byte(h.Linkname))]
}

// entry adds one entry, or cuts the tar before it.
func (c *collector) entry(h *tar.Header, content io.Reader) error {
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(h); err != nil {
		return err
	}
	padding := -h.Size & (block - 1)
	whole := int64(header.Len()) + h.Size + padding
	// The first is for a sum that overflowed.
	if h.Size > c.limits.Bytes || whole > c.limits.Bytes-c.reserved {
		c.done.Truncated = true
		return nil
	}
	if err := c.reserve(whole); err != nil {
		return err
	}
	if err := c.write(header.Bytes()); err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(c.sum, c.to), io.LimitReader(content, h.Size))
	c.done.Bytes += n
	if err == nil && n < h.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	c.done.Entries++
	if h.Typeflag != tar.TypeDir {
		c.linkable[sha256.Sum256([]byte(h.Name))] = true
	}
	return c.write(make([]byte, padding))
}

func (c *collector) reserve(n int64) error {
	if !c.to.Reserve(n) {
		return ErrNoRoom
	}
	c.reserved += n
	return nil
}

func (c *collector) write(p []byte) error {
	c.sum.Write(p)
	n, err := c.to.Write(p)
	c.done.Bytes += int64(n)
	return err
}
