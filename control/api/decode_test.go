package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"ecs/internal/task"
)

func TestStrictDecoderNamesEveryFault(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, tc := range []struct {
		name, body string
		pointers   string // of all faults, in order
		detail     string // in the first
	}{
		{"empty", "", "", "is empty"},
		{"white space", " \n", "", "is empty"},
		{"a word", `hello`, "", "no JSON"},
		{"cut", `{"a": {"b": [1, 2`, "/a/b", "too early"},
		{"comma at the end", `{"a": [1,]}`, "/a/1", "no JSON"},
		{"no quotes", `{a: 1}`, "", "no JSON"},
		{"single quotes", `{'a': 1}`, "", "no JSON"},
		{"trailing document", `{"a":1} {"b":2}`, "", "more behind the end"},
		{"trailing rubbish", `{"a":1} x`, "", "no JSON"},
		{"comment", `{"a":1} // x`, "", "no JSON"},
		{"NaN", `{"a":NaN}`, "/a", "no JSON"},
		{"duplicates", `{"a":1,"b":{"c":1,"c":2},"a":3}`, "/b/c /a", "more than once"},
		{"duplicate through an escape", `{"a":1,"\u0061":2}`, "/a", "more than once"},
		{"invalid UTF-8 in a value", "{\"a\":[\"x\xff\"]}", "/a/0", "not UTF-8"},
		{"invalid UTF-8 in a name", "{\"a\":{\"x\xff\":1}}", "/a", "not UTF-8"},
		{"half surrogate", `{"a":"\ud800"}`, "/a", "surrogate"},
		{"half surrogate before text", `{"a":"\ud800x"}`, "/a", "surrogate"},
		{"second half alone", `{"a":"\udc00"}`, "/a", "surrogate"},
		{"two first halves", `{"a":"\ud800\ud800"}`, "/a", "surrogate"},
		{"raw newline", "{\"a\":\"x\ny\"}", "/a", "no JSON"},
		{"too deep", deep(33), strings.Repeat("/a", 32), "deeper than 32"},
		{"slash and tilde in a name", `{"a/b":{"c~d":{"e":1,"e":2}}}`, "/a~1b/c~0d/e", "more than once"},
	} {
		f := new(faults)
		_, ok := decode([]byte(tc.body), f)
		var pointers []string
		for _, fault := range f.list {
			pointers = append(pointers, fault.Pointer)
		}
		if got := strings.Join(pointers, " "); len(f.list) == 0 || got != tc.pointers || !strings.Contains(f.list[0].Detail, tc.detail) {
			t.Errorf("%s: got %v, %+v, want %q with %q", tc.name, ok, f.list, tc.pointers, tc.detail)
		}
		if duplicate := strings.Contains(tc.detail, "once"); ok != duplicate {
			t.Errorf("%s: got ok %v, want %v: a duplicate leaves the rest readable", tc.name, ok, duplicate)
		}
		var e *task.Error
		if err := f.err(); !errors.As(err, &e) || !ok && e.Code != task.CodeBadRequest {
			t.Errorf("%s: got %v, want bad_request", tc.name, err)
		}
	}
	for _, body := range []string{deep(32), `"\ud83d\ude00"`, `"\\ud800"`, `{"a":"\u00e9"}`, ` {"a" : [ 1 , -2.5e3 , true , null ] } `} {
		f := new(faults)
		if _, ok := decode([]byte(body), f); !ok || len(f.list) > 0 {
			t.Errorf("%.40s: got %+v, want no fault", body, f.list)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	body := `{"image":"busybox:1"`
	for i := range 1000 {
		body += fmt.Sprintf(`,"x%d":1`, i)
	}
	p := &parser{grammar: newGrammar()}
	_, err := p.v2([]byte(body + "}"))
	var e *task.Error
	if !errors.As(err, &e) || len(e.Faults) != maxFaults || !strings.Contains(e.Message, "first 100") {
		t.Errorf("got %d faults, %q, want %d and a word about it", len(e.Faults), e.Message, maxFaults)
	}
}

func TestCanonicalFormIgnoresOrderAndSpace(t *testing.T) {
	form := func(body string) string {
		f := new(faults)
		root, ok := decode([]byte(body), f)
		if !ok {
			t.Fatalf("%s: %+v", body, f.list)
		}
		return string(canonical("v2", root))
	}
	if a, b := form(`{"a":1,"b":["x",true,null]}`), form("{ \"b\" : [ \"\\u0078\", true , null ],\n\"a\": 1 }"); a != b {
		t.Errorf("got %s and %s, want them equal", a, b)
	}
	seen := make(map[string]string)
	for _, body := range []string{`{}`, `[]`, `null`, `"null"`, `{"a":1}`, `{"a":"1"}`, `{"a":[1]}`, `{"a":[1,1]}`, `{"a":[11]}`, `{"a":["1,1"]}`,
		`{"a":["1","1"]}`, `{"a":true}`, `{"a":"true"}`, `{"a":{"b":1}}`, `{"a":{},"b":1}`, `[["a"],"b"]`, `[["a","b"]]`} {
		if other, taken := seen[form(body)]; taken {
			t.Errorf("%s and %s have the same form %s", body, other, form(body))
		}
		seen[form(body)] = body
	}
}

// FuzzDecode holds that the decoder takes only JSON and understands it as
// encoding/json does.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a":[1,"x",true,null]}`, `{"a":1,"a":2}`, "\"\xff\"", `"\ud800\udc00"`, `[[[[]]]]`, `1e400`, `{"a":{"b":"\\"}}`, ` `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		faults := new(faults)
		root, ok := decode(body, faults)
		if !ok {
			if len(faults.list) == 0 {
				t.Fatalf("%q: refused without a fault", body)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q: taken, and is no JSON", body)
		}
		if len(faults.list) > 0 {
			return // duplicates: encoding/json keeps the last one
		}
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.UseNumber()
		var want any
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if got := plain(root); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, want %#v", body, got, want)
		}
	})
}

// plain turns a decoded value into what encoding/json makes of it.
func plain(v value) any {
	switch v.kind {
	case boolean:
		return v.truth
	case number:
		return json.Number(v.text)
	case text:
		return v.text
	case array:
		list := make([]any, len(v.items))
		for i, item := range v.items {
			list[i] = plain(item)
		}
		return list
	case object:
		m := make(map[string]any)
		for _, member := range v.members {
			m[member.name] = plain(member.value)
		}
		return m
	}
	return nil
}

// FuzzRequest holds that no body makes the parsers panic, and that what they
// take is within its bounds.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"image":"busybox:1","command":["a"],"env":["A=b"],"resources":{"cpu":0.5,"memory":"1GiB","pids":5},"timeouts":{"run":"5s"}}`))
	f.Add([]byte(`{"docker_image":"busybox","tag":"1","cmd":["a"],"creds":{"username":"u","password":"p"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := &parser{grammar: newGrammar(), capAdd: defaultCapabilities()}
		if r, err := p.v2(body); err == nil {
			s := r.spec.WithDefaults(task.V2, false)
			if s.Resources.MilliCPU <= 0 || s.Resources.Memory < task.MinMemory || s.Resources.Pids < 1 || s.Timeouts.Run <= 0 || s.MaxOutput > task.MaxOutput {
				t.Errorf("%q: took %+v", body, s)
			}
		}
		for _, separate := range []bool{false, true} {
			if r, err := p.v1(body, separate); err == nil && (len(r.spec.Command) == 0 || !strings.Contains(r.spec.Image, ":")) {
				t.Errorf("%q: took %+v", body, r.spec)
			}
		}
	})
}
