package fake

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"ecs/agent/runtime"
)

// files is what a program has left, by absolute and clean path.
type files struct {
	mu sync.Mutex
	at map[string]tar.Header
	of map[string][]byte // content of the regular ones
}

// put adds one, with the directories that lead to it.
func (f *files) put(name string, h tar.Header, content []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		f.at, f.of = map[string]tar.Header{}, map[string][]byte{}
	}
	name = path.Clean("/" + name)
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, there := f.at[dir]; !there {
			f.at[dir] = tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}
		}
	}
	h.Size = int64(len(content))
	f.at[name], f.of[name] = h, content
}

// pack gives a tar of what lies at a path.
func (f *files) pack(root string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.at[root]; !there || f.loopsLocked(root) {
		return nil, fmt.Errorf("copy from container: %w", runtime.ErrNoPath)
	}
	var out bytes.Buffer
	to := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(f.at)) {
		if name != root && !strings.HasPrefix(name, root+"/") {
			continue
		}
		h := f.at[name]
		h.Name = path.Base(root) + name[len(root):]
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if err := to.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := to.Write(f.of[name]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), to.Close()
}

// loopsLocked reports whether a link leads nowhere but to links.
func (f *files) loopsLocked(name string) bool {
	for range len(f.at) + 1 {
		h := f.at[name]
		if h.Typeflag != tar.TypeSymlink {
			return false
		}
		if !path.IsAbs(h.Linkname) {
			h.Linkname = path.Join(path.Dir(name), h.Linkname)
		}
		name = path.Clean(h.Linkname)
	}
	return true
}

// CopyOut implements runtime.Container.
func (h *handle) CopyOut(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := h.call(ctx, 0); err != nil {
		return nil, fmt.Errorf("copy from container: %w", err)
	}
	h.mu.Lock()
	removed := h.mu.removed
	h.mu.Unlock()
	if removed {
		return nil, fmt.Errorf("copy from container: %w", errRemoved)
	}
	content, err := h.files.pack(name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(&copying{h, ctx, bytes.NewReader(content)}), nil
}

// copying is an answer that takes as long as the engine's calls do.
type copying struct {
	*handle
	ctx  context.Context
	rest io.Reader
}

func (c *copying) Read(p []byte) (int, error) {
	if err := c.call(c.ctx, c.view.e.delays().copying); err != nil {
		return 0, err
	}
	return c.rest.Read(p)
}

// leave is a step that makes one file, directory or link.
func leave(kind byte) step {
	return func(_ context.Context, to stdio, args []string) (*runtime.Exit, error) {
		if len(args) == 0 {
			return nil, fmt.Errorf("no path")
		}
		h := tar.Header{Typeflag: kind, Mode: 0o644}
		var content []byte
		switch rest := strings.Join(args[1:], " "); kind {
		case tar.TypeReg:
			content = []byte(rest)
		case tar.TypeDir:
			h.Mode = 0o755
		case tar.TypeSymlink:
			h.Linkname = rest
		}
		to.files.put(args[0], h, content)
		return nil, nil
	}
}

// fill makes a file of so many bytes.
func fill(_ context.Context, to stdio, args []string) (*runtime.Exit, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("got %d words, want a path and a number", len(args))
	}
	n, err := number(args[1:])
	if err != nil {
		return nil, err
	}
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(i % spewPeriod)
	}
	to.files.put(args[0], tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, content)
	return nil, nil
}
