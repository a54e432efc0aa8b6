package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"ecs/proto/api"
)

// extraction writes a tar of a stranger's into one directory and nowhere else.
//
// os.Root lets nothing out. Within the directory no link is followed either,
// neither one of the tar's nor one that was there before: what leads to a file
// are real directories, what is in its place is removed first, and symbolic
// links come last. So a link's target, read from such a directory, can be judged
// by its words.
type extraction struct {
	root *os.Root
	from string // what is wanted; "" is all of it
	say  func(format string, args ...any)

	made  map[string]bool // regular files, by their name in the tar
	links []tar.Header
	bytes int64
	found bool
}

func (x *extraction) run(in io.Reader) error {
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the tar: %w", err)
		}
		name, err := local(h.Name)
		if err != nil {
			return err
		}
		to, wanted := picked(name, x.from)
		if !wanted {
			continue
		}
		x.found = true
		if err := x.entry(h, name, to, r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if !x.found && x.from != "" {
		return fmt.Errorf("there is nothing at /%s among its files", x.from)
	}
	for _, h := range x.links {
		if err := x.symlink(h.Name, h.Linkname); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return nil
}

// local gives a clean name of an entry, which has to lie below the directory.
func local(name string) (string, error) {
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) || clean == "." || strings.Contains("/"+name+"/", "/../") {
		return "", fmt.Errorf("the tar has an entry %q, which leads out of it: nothing more is taken", name)
	}
	return clean, nil
}

// picked gives where an entry goes: with from only what lies there, under its
// last name.
func picked(name, from string) (to string, wanted bool) {
	if from == "" {
		return name, true
	}
	rest, ok := strings.CutPrefix(name, from)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Base(from) + rest, true
}

func (x *extraction) entry(h *tar.Header, name, to string, content io.Reader) error {
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return x.directory(to, mode)
	case tar.TypeReg:
		if x.bytes += h.Size; h.Size < 0 || x.bytes > api.MaxOutputs {
			return fmt.Errorf("the tar holds more than the %s it may", bytesText(api.MaxOutputs))
		}
		x.made[name] = true
		return x.file(to, mode, h, content)
	case tar.TypeSymlink:
		x.links = append(x.links, tar.Header{Name: to, Linkname: h.Linkname})
		return nil
	case tar.TypeLink:
		return x.hardLink(h.Linkname, to)
	}
	x.say("%s is left out: it is no file, directory or link", printable(name))
	return nil
}

// clear makes way for to: its directories are there, and nothing is in its place.
func (x *extraction) clear(to string) error {
	if err := x.parents(path.Dir(to)); err != nil {
		return err
	}
	err := x.root.Remove(to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// parents makes the directories that lead to dir, and dir.
func (x *extraction) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if err := x.parents(path.Dir(dir)); err != nil {
		return err
	}
	return x.oneDirectory(dir, 0o777)
}

func (x *extraction) oneDirectory(dir string, mode fs.FileMode) error {
	err := x.root.Mkdir(dir, mode|0o700) // what is in it has to get there, and be removed again
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := x.root.Lstat(dir)
	if err == nil && !there.IsDir() {
		err = fmt.Errorf("%s is in the way: it is there and no directory", dir)
	}
	return err
}

func (x *extraction) directory(to string, mode fs.FileMode) error {
	if err := x.parents(path.Dir(to)); err != nil {
		return err
	}
	return x.oneDirectory(to, mode)
}

func (x *extraction) file(to string, mode fs.FileMode, h *tar.Header, content io.Reader) error {
	if err := x.clear(to); err != nil {
		return err
	}
	f, err := x.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, content, h.Size)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return x.root.Chtimes(to, h.ModTime, h.ModTime)
}

// hardLink links to a file that this tar brought, never to one that was there.
func (x *extraction) hardLink(target, to string) error {
	name, err := local(target)
	if err != nil {
		return err
	}
	old, wanted := picked(name, x.from)
	if !x.made[name] {
		if wanted {
			x.say("%s is left out: it is a hard link to %s, which is no file of these", printable(to), printable(name))
			return nil
		}
		return fmt.Errorf("it is a hard link to /%s: copy that, or both", name)
	}
	if old == to {
		return nil
	}
	if err := x.clear(to); err != nil {
		return err
	}
	return x.root.Link(old, to)
}

// symlink makes a link that stays below the directory, and leaves out one that
// does not.
func (x *extraction) symlink(to, target string) error {
	if !staysBelow(to, target) {
		x.say("%s is left out: it is a symbolic link to %s, which is not below the directory", printable(to), printable(target))
		return nil
	}
	if err := x.clear(to); err != nil {
		return err
	}
	return x.root.Symlink(target, to)
}

// staysBelow reports whether a link's target lies below the directory, whatever
// is there: it may go up from where the link is, which is a real directory, but
// not from where another link has led it.
func staysBelow(name, target string) bool {
	if target == "" || path.IsAbs(target) {
		return false
	}
	down := false
	for step := range strings.SplitSeq(target, "/") {
		switch {
		case step == ".." && down:
			return false
		case step != ".." && step != "." && step != "":
			down = true
		}
	}
	return filepath.IsLocal(path.Join(path.Dir(name), target))
}

// pick writes a tar of what lies at from in another one.
func pick(in io.Reader, out io.Writer, from string) error {
	found := false
	to := tar.NewWriter(out)
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the tar: %w", err)
		}
		name, wanted := picked(path.Clean(h.Name), from)
		if !wanted {
			continue
		}
		found = true
		h.Name, h.Format, h.PAXRecords = name, tar.FormatUnknown, nil
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			if h.Linkname, wanted = picked(path.Clean(h.Linkname), from); !wanted {
				return fmt.Errorf("%s is a hard link to a file that is not below /%s: copy both", name, from)
			}
		}
		if err := to.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := io.Copy(to, r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if !found {
		return fmt.Errorf("there is nothing at /%s among its files", from)
	}
	return to.Close()
}
