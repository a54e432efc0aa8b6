package api

import (
	"strings"
	"time"

	"ecs/internal/task"
	"ecs/proto/api"
)

// fields reads the members of one object. Each reader takes a member by name
// and adds a fault when it is of the wrong kind; a member that is absent or
// null leaves the zero value. done adds a fault for every member nobody took.
type fields struct {
	value
	faults *faults
	taken  map[string]bool
}

// fieldsOf expects v to be an object.
func fieldsOf(v value, f *faults) *fields {
	if v.kind != object {
		f.add(v.pointer, "", "must be an object, not %s", v.kind)
		v.members = nil
	}
	return &fields{value: v, faults: f, taken: make(map[string]bool)}
}

// at is the pointer of a member, whether it is there or not.
func (f *fields) at(name string) string { return f.pointer + "/" + escape(name) }

// take gives the member, or nil when it is absent or null.
func (f *fields) take(name string) *value {
	f.taken[name] = true
	for i := range f.members {
		if m := &f.members[i]; m.name == name && m.kind != null {
			return &m.value
		}
	}
	return nil
}

// done adds a fault for every member that is not part of the protocol.
func (f *fields) done() {
	for _, m := range f.members {
		if f.taken[m.name] {
			continue
		}
		hint := ""
		for name := range f.taken {
			if strings.EqualFold(name, m.name) {
				hint = "; names are lower case: " + name
			}
		}
		f.faults.add(m.pointer, "", "is not a member of this request%s", hint)
	}
}

// notYet adds a fault for each of the names that is there.
func (f *fields) notYet(names ...string) {
	for _, name := range names {
		if v := f.take(name); v != nil {
			f.faults.add(v.pointer, task.CodeNotYet, "is designed but not built yet")
		}
	}
}

// of takes the member when it is of the kind k.
func (f *fields) of(name string, k kind) *value {
	v := f.take(name)
	if v == nil {
		return nil
	}
	if v.kind != k {
		f.faults.add(v.pointer, "", "must be %s, not %s", k, v.kind)
		return nil
	}
	return v
}

// object takes a nested object, or nil.
func (f *fields) object(name string) *fields {
	if v := f.of(name, object); v != nil {
		return fieldsOf(*v, f.faults)
	}
	return nil
}

// text takes a string. NUL is refused: no argument, variable, path or name can
// hold it.
func (f *fields) text(name string) string {
	if v := f.of(name, text); v != nil && f.clean(*v) {
		return v.text
	}
	return ""
}

func (f *fields) clean(v value) bool {
	if strings.ContainsRune(v.text, 0) {
		f.faults.add(v.pointer, "", "contains a NUL character")
		return false
	}
	return true
}

// texts takes an array of strings. It is nil when the member is absent and
// keeps its length whatever its items are, so that positions stay true.
func (f *fields) texts(name string) []string {
	v := f.of(name, array)
	if v == nil {
		return nil
	}
	list := make([]string, len(v.items))
	for i, item := range v.items {
		if item.kind != text {
			f.faults.add(item.pointer, "", "must be a string, not %s", item.kind)
		} else if f.clean(item) {
			list[i] = item.text
		}
	}
	return list
}

// choice takes a string that is one of a few.
func choice[T ~string](f *fields, name string, choices ...T) T {
	v := f.of(name, text)
	if v == nil {
		return ""
	}
	names := make([]string, len(choices))
	for i, c := range choices {
		if T(v.text) == c {
			return c
		}
		names[i] = `"` + string(c) + `"`
	}
	f.faults.add(v.pointer, "", "must be %s", strings.Join(names, " or "))
	return ""
}

// duration takes a Go-style duration between low and high.
func (f *fields) duration(name string, low, high time.Duration) time.Duration {
	v := f.take(name)
	if v == nil {
		return 0
	}
	if v.kind != text {
		f.faults.add(v.pointer, "", `must be a duration, a string such as "90s", not %s`, v.kind)
		return 0
	}
	d, err := api.ParseDuration(v.text)
	switch {
	case err != nil:
		f.faults.add(v.pointer, "", "%v", err)
	case d <= 0:
		f.faults.add(v.pointer, "", "must be more than 0")
	case d < low || d > high:
		f.faults.add(v.pointer, "", "must be between %s and %s", api.Duration(low), api.Duration(high))
	default:
		return d
	}
	return 0
}

// size takes a number of bytes between low and high.
func (f *fields) size(name string, low, high int64) int64 {
	n, _ := f.quantity(name, "size, such as \"128MiB\"", api.ParseSize, low, high,
		func(n int64) string { return api.Size(n).String() })
	return n
}

// cpu takes thousandths of a core between low and high.
func (f *fields) cpu(name string, low, high int64) int64 {
	n, _ := f.quantity(name, "number of cores, such as 0.25", api.ParseCPU, low, high,
		func(n int64) string { return api.CPU(n).String() })
	return n
}

// count takes a whole number between low and high, and says whether one came.
func (f *fields) count(name string, low, high int64) (int64, bool) {
	if v := f.of(name, number); v == nil {
		return 0, false
	}
	return f.quantity(name, "whole number", parseCount, low, high, formatCount)
}

// quantity takes a string or number that parse understands.
func (f *fields) quantity(name, what string, parse func(string) (int64, error), low, high int64, format func(int64) string) (int64, bool) {
	v := f.take(name)
	if v == nil {
		return 0, false
	}
	if v.kind != number && v.kind != text {
		f.faults.add(v.pointer, "", "must be a %s, not %s", what, v.kind)
		return 0, false
	}
	n, err := parse(v.text)
	switch {
	case err != nil:
		f.faults.add(v.pointer, "", "%v", err)
	case n < low || n > high:
		f.faults.add(v.pointer, "", "must be between %s and %s", format(low), format(high))
	default:
		return n, true
	}
	return 0, false
}
