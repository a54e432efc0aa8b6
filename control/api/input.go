package api

import (
	"encoding/base64"
	"path"
	"strconv"
	"strings"

	"ecs/internal/task"
	"ecs/proto/api"
)

// input reads what the program is given to read: standard input, files, a
// terminal.
func (p *parser) input(o *fields, s *task.Spec) {
	s.OpenStdin = o.truth("open_stdin")
	s.TTY = o.truth("tty")
	if v := o.take("stdin"); v != nil {
		s.Stdin, _ = content(*v, o.faults)
		s.StdinSize = int64(len(s.Stdin))
		switch {
		case s.OpenStdin:
			o.faults.add(v.pointer, "", "cannot be given together with open_stdin: send it over attach")
		case s.TTY:
			o.faults.add(v.pointer, "", "cannot be given together with tty: a terminal is typed into over attach, with open_stdin")
		}
	}
	s.Files = files(o)
}

// truth takes a boolean.
func (f *fields) truth(name string) bool {
	v := f.of(name, boolean)
	return v != nil && v.truth
}

// content reads bytes that are written as a string or as
// {"encoding": ..., "data": ...}.
func content(v value, f *faults) ([]byte, bool) {
	switch v.kind {
	case text:
		return []byte(v.text), true
	case object:
	default:
		f.add(v.pointer, "", `must be a string, or an object with encoding and data, not %s`, v.kind)
		return nil, false
	}
	n := fieldsOf(v, f)
	encoding := n.of("encoding", text)
	data := n.of("data", text)
	if data == nil {
		if _, wrong := find(n.members, "data"); !wrong {
			f.add(n.at("data"), "", "is missing")
		}
	}
	n.done()
	switch {
	case data == nil:
		return nil, false
	case encoding == nil || encoding.text == api.EncodingUTF8:
		return []byte(data.text), true
	case encoding.text != api.EncodingBase64:
		f.add(encoding.pointer, "", `must be %q or %q`, api.EncodingUTF8, api.EncodingBase64)
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(data.text)
	if err != nil {
		f.add(data.pointer, "", "is not base64 as RFC 4648 has it, with padding and without line breaks: %v", err)
		return nil, false
	}
	return b, true
}

// files reads the files that the program is to find.
func files(o *fields) []task.File {
	v := o.of("files", array)
	if v == nil {
		return nil
	}
	if len(v.items) > task.MaxFiles {
		o.faults.add(v.pointer, "", "must be at most %d files", task.MaxFiles)
		return nil
	}
	list := make([]task.File, 0, len(v.items))
	for _, item := range v.items {
		n := fieldsOf(item, o.faults)
		if item.kind != object {
			continue
		}
		file := task.File{Path: n.text("path"), Mode: fileMode(n)}
		if _, there := find(n.members, "path"); !there {
			n.faults.add(n.at("path"), "", "is missing")
		} else {
			checkFilePath(n.faults, n.at("path"), file.Path, list)
		}
		if c := n.take("content"); c != nil {
			file.Content, _ = content(*c, n.faults)
		} else {
			n.faults.add(n.at("content"), "", `is missing; "" makes an empty file`)
		}
		file.Size = int64(len(file.Content))
		n.done()
		list = append(list, file)
	}
	return list
}

// fileMode reads permission bits, written in octal.
func fileMode(n *fields) uint32 {
	v := n.of("mode", text)
	if v == nil {
		return task.FileMode
	}
	mode, err := strconv.ParseUint(v.text, 8, 32)
	if err != nil || mode > task.MaxFileMode || len(v.text) > 4 {
		n.faults.add(v.pointer, "", `must be permission bits in octal, such as "0644", at most "0777"`)
	}
	return uint32(mode)
}

// initDirectory is where every container has what runs its program.
const initDirectory = "/.ecs"

// checkFilePath wants a clean absolute path that no file before it stands in
// the way of.
func checkFilePath(f *faults, pointer, name string, before []task.File) {
	switch {
	case !strings.HasPrefix(name, "/"):
		f.add(pointer, "", "must be an absolute path")
		return
	case len(name) > maxPath:
		f.add(pointer, "", "must be at most %d bytes long", maxPath)
		return
	case path.Clean(name) != name || name == "/":
		f.add(pointer, "", `must be the clean path of a file: no ".", no "..", no "//" and no "/" at the end`)
		return
	}
	for _, closed := range []string{"/proc", "/sys", initDirectory} {
		if within(name, closed) {
			f.add(pointer, "", "must not be in /proc, /sys or %s", initDirectory)
			return
		}
	}
	for _, other := range before {
		switch {
		case other.Path == "":
		case other.Path == name:
			f.add(pointer, "", "is there more than once")
		case within(name, other.Path), within(other.Path, name):
			f.add(pointer, "", "cannot be there together with %s", other.Path)
		}
	}
}

// within reports whether name is dir or lies below it.
func within(name, dir string) bool { return strings.HasPrefix(name+"/", dir+"/") }
