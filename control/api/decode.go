package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ecs/internal/task"
)

// maxDepth is how deep a body may nest.
const maxDepth = 32

// maxFaults bounds how many faults of one body are told.
const maxFaults = 100

// value is one node of a decoded body, with the pointer that leads to it.
type value struct {
	pointer string
	kind    kind
	text    string // of a string, or of a number as it was written
	truth   bool
	members []member // of an object, in the order they came
	items   []value  // of an array
}

type member struct {
	name string
	value
}

type kind int

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

// String names the kind in messages.
func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}[k]
}

// faults collects everything that is wrong with a request.
type faults struct {
	list   []task.Fault
	broken bool // the body could not be read to its end
	more   bool // there were more than are listed
}

// add notes a fault. One for each member is enough: what follows from the first
// is left out.
func (f *faults) add(pointer string, code task.Code, format string, args ...any) {
	if pointer != "" && slices.ContainsFunc(f.list, func(o task.Fault) bool { return o.Pointer == pointer }) {
		return
	}
	if len(f.list) == maxFaults {
		f.more = true
		return
	}
	f.list = append(f.list, task.Fault{Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
}

// err gives the refusal, or nil when nothing is wrong. Its code is that of the
// faults when they agree.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	code := task.CodeInvalidTask
	if !slices.ContainsFunc(f.list, func(o task.Fault) bool { return o.Code != f.list[0].Code }) && f.list[0].Code != "" {
		code = f.list[0].Code
	}
	message := "the body is not a valid request"
	switch {
	case f.broken:
		code, message = task.CodeBadRequest, "the body cannot be read"
	case code == task.CodeNotYet:
		message = "these members are designed but not built yet"
	case code == task.CodeTooLarge:
		message = "an argument or a variable is too large"
	}
	if f.more {
		message += fmt.Sprintf("; these are the first %d faults", maxFaults)
	}
	return &task.Error{Code: code, Message: message, Faults: f.list}
}

// decode reads body as one strict JSON document: no duplicate names, nothing
// behind it, valid UTF-8, no more than maxDepth levels. It finds every
// duplicate, but ends at the first fault that leaves the rest without meaning.
func decode(body []byte, f *faults) (value, bool) {
	d := &decoder{body: body, faults: f, json: json.NewDecoder(bytes.NewReader(body))}
	d.json.UseNumber()
	root, err := d.value("", 0)
	if err == nil {
		_, err = d.json.Token()
		switch {
		case errors.Is(err, io.EOF):
			err = nil
		case err == nil:
			err = d.stop("", "there is more behind the end of the document")
		default:
			err = d.syntax("", err)
		}
	}
	f.broken = f.broken || err != nil
	return root, err == nil
}

type decoder struct {
	body   []byte
	json   *json.Decoder
	faults *faults
}

// errStop says that the fault which ends the reading has been added.
var errStop = errors.New("unreadable body")

func (d *decoder) stop(pointer, format string, args ...any) error {
	d.faults.add(pointer, task.CodeBadRequest, format, args...)
	return errStop
}

func (d *decoder) syntax(pointer string, err error) error {
	if len(bytes.TrimSpace(d.body)) == 0 {
		return d.stop(pointer, "the body is empty")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return d.stop(pointer, "the document ends too early, at byte %d", len(d.body))
	}
	return d.stop(pointer, "no JSON around byte %d: %v", d.json.InputOffset(), err)
}

// value reads the next value, which is depth levels down.
func (d *decoder) value(pointer string, depth int) (value, error) {
	v := value{pointer: pointer}
	before := d.json.InputOffset()
	token, err := d.json.Token()
	if err != nil {
		return v, d.syntax(pointer, err)
	}
	switch t := token.(type) {
	case json.Delim:
		if depth == maxDepth {
			return v, d.stop(pointer, "nested deeper than %d levels", maxDepth)
		}
		if t == '{' {
			return d.object(v, depth+1)
		}
		return d.array(v, depth+1)
	case string:
		v.kind, v.text = text, t
		return v, d.checkText(pointer, before)
	case json.Number:
		v.kind, v.text = number, t.String()
	case bool:
		v.kind, v.truth = boolean, t
	}
	return v, nil
}

func (d *decoder) object(v value, depth int) (value, error) {
	v.kind = object
	names := make(map[string]bool)
	for d.json.More() {
		before := d.json.InputOffset()
		token, err := d.json.Token()
		if err != nil {
			return v, d.syntax(v.pointer, err)
		}
		name, _ := token.(string)
		if err := d.checkText(v.pointer, before); err != nil {
			return v, err
		}
		m, err := d.value(v.pointer+"/"+escape(name), depth)
		if err != nil {
			return v, err
		}
		if names[name] {
			d.faults.add(m.pointer, "", "is there more than once")
			continue
		}
		names[name] = true
		v.members = append(v.members, member{name: name, value: m})
	}
	return v, d.end(v.pointer)
}

func (d *decoder) array(v value, depth int) (value, error) {
	v.kind = array
	for d.json.More() {
		item, err := d.value(v.pointer+"/"+strconv.Itoa(len(v.items)), depth)
		if err != nil {
			return v, err
		}
		v.items = append(v.items, item)
	}
	return v, d.end(v.pointer)
}

func (d *decoder) end(pointer string) error {
	if _, err := d.json.Token(); err != nil {
		return d.syntax(pointer, err)
	}
	return nil
}

// checkText refuses what encoding/json would quietly replace: bytes that are
// no UTF-8 and halves of surrogate pairs. The string just read lies behind
// before.
func (d *decoder) checkText(pointer string, before int64) error {
	raw := d.body[before:d.json.InputOffset()]
	if !utf8.Valid(raw) {
		return d.stop(pointer, "contains bytes that are not UTF-8")
	}
	if halfSurrogate(string(raw)) {
		return d.stop(pointer, `contains half of a surrogate pair (\ud800 to \udfff)`)
	}
	return nil
}

func halfSurrogate(raw string) bool {
	for {
		i := strings.IndexByte(raw, '\\')
		if i < 0 {
			return false
		}
		raw = raw[i:]
		r := escaped(raw)
		switch {
		case r >= 0xd800 && r < 0xdc00:
			if low := escaped(raw[6:]); low < 0xdc00 || low > 0xdfff {
				return true
			}
			raw = raw[12:]
		case r >= 0xdc00 && r <= 0xdfff:
			return true
		default:
			raw = raw[2:] // the escape's first two bytes; hex digits hold no backslash
		}
	}
}

// escaped gives the code unit of a \uXXXX at the start of s, or -1.
func escaped(s string) int {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

// escape makes a name a step of a JSON pointer (RFC 6901).
func escape(name string) string {
	if !strings.ContainsAny(name, "~/") {
		return name // as every name is that is known
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// canonical writes the value with sorted names and no white space, so that two
// bodies that say the same give the same bytes.
func (v *value) canonical(b *bytes.Buffer) {
	switch v.kind {
	case null:
		b.WriteString("null")
	case boolean:
		b.WriteString(strconv.FormatBool(v.truth))
	case number:
		b.WriteString(v.text)
	case text:
		b.WriteString(strconv.Quote(v.text))
	case array:
		b.WriteByte('[')
		for i := range v.items {
			v.items[i].canonical(b)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	case object:
		sorted := slices.SortedFunc(slices.Values(v.members), func(a, b member) int { return strings.Compare(a.name, b.name) })
		b.WriteByte('{')
		for i := range sorted {
			b.WriteString(strconv.Quote(sorted[i].name))
			b.WriteByte(':')
			sorted[i].canonical(b)
			b.WriteByte(',')
		}
		b.WriteByte('}')
	}
}
