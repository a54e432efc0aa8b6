package ecsv1_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	ecsv1 "ecs/proto/ecs/v1"
)

// With -add the test writes a new file of samples when the present messages
// have fields that no sample covers. Files are only ever added: each holds
// bytes that some release may have written to a disk.
var add = flag.Bool("add", false, "add samples for fields that have none to testdata/golden")

const golden = "testdata/golden"

// sample is one line of a golden file: bytes as they were written once, and
// what they said.
type sample struct {
	Message protoreflect.FullName `json:"message"`
	Hex     string                `json:"hex"`
	Means   json.RawMessage       `json:"means"`
}

func TestOldBytesStillSayTheSame(t *testing.T) {
	samples := readSamples(t)
	if len(samples) == 0 {
		t.Fatalf("no samples in %s", golden)
	}
	for i, s := range samples {
		t.Run(fmt.Sprintf("%s/%d", s.Message, i), func(t *testing.T) {
			got, want := decode(t, s)
			if !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if unknown := unknownIn(got.ProtoReflect()); unknown != "" {
				t.Errorf("%s: bytes that were once understood are unknown now", unknown)
			}
		})
	}
}

func TestEveryFieldHasASample(t *testing.T) {
	covered := make(map[protoreflect.FullName]bool)
	files := 0
	for _, s := range readSamples(t) {
		m, _ := decode(t, s)
		cover(covered, m.ProtoReflect())
	}
	if names, err := filepath.Glob(filepath.Join(golden, "*.jsonl")); err == nil {
		files = len(names)
	}
	var missing []protoreflect.FullName
	messages := ecsv1.File_ecs_v1_ecs_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			if name := fields.Get(j).FullName(); !covered[name] {
				missing = append(missing, name)
			}
		}
	}
	switch {
	case len(missing) == 0:
	case *add:
		writeSamples(t, filepath.Join(golden, fmt.Sprintf("%04d.jsonl", files+1)))
	default:
		t.Errorf("no sample covers %v; go test ./proto/ecs/v1 -add", missing)
	}
}

func readSamples(t *testing.T) []sample {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(golden, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var samples []sample
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var s sample
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			samples = append(samples, s)
		}
		if err := lines.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return samples
}

// decode reads a sample's bytes, and its meaning by the names of the fields.
func decode(t *testing.T, s sample) (got, want proto.Message) {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(s.Message)
	if err != nil {
		t.Fatalf("%s: %v", s.Message, err)
	}
	b, err := hex.DecodeString(s.Hex)
	if err != nil {
		t.Fatalf("%s: %v", s.Message, err)
	}
	got, want = kind.New().Interface(), kind.New().Interface()
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatalf("%s: %v", s.Message, err)
	}
	if err := protojson.Unmarshal(s.Means, want); err != nil {
		t.Fatalf("%s: %v", s.Message, err)
	}
	return got, want
}

// unknownIn names the first message below m that holds unknown bytes.
func unknownIn(m protoreflect.Message) string {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().FullName())
	}
	found := ""
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			for i := 0; i < v.List().Len() && found == ""; i++ {
				found = unknownIn(v.List().Get(i).Message())
			}
		default:
			found = unknownIn(v.Message())
		}
		return found == ""
	})
	return found
}

func cover(covered map[protoreflect.FullName]bool, m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		covered[f.FullName()] = true
		return true
	})
}

func writeSamples(t *testing.T, name string) {
	t.Helper()
	var out bytes.Buffer
	f := &filler{}
	messages := ecsv1.File_ecs_v1_ecs_proto.Messages()
	for i := range messages.Len() {
		for _, m := range f.variants(t, messages.Get(i)) {
			out.Write(line(t, m))
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("wrote %s", name)
}

func line(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	means, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer // protojson varies its spaces on purpose
	if err := json.Compact(&plain, means); err != nil {
		t.Fatal(err)
	}
	l, err := json.Marshal(sample{
		Message: m.ProtoReflect().Descriptor().FullName(),
		Hex:     hex.EncodeToString(b),
		Means:   plain.Bytes(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(l, '\n')
}

// filler makes messages whose every field is set to a value of its own.
type filler struct{ n int64 }

// variants gives one message for each member of a oneof, or just one.
func (f *filler) variants(t *testing.T, d protoreflect.MessageDescriptor) []proto.Message {
	t.Helper()
	if d.Oneofs().Len() == 0 {
		return []proto.Message{f.message(t, d, nil).Interface()}
	}
	var all []proto.Message
	members := d.Oneofs().Get(0).Fields()
	for i := range members.Len() {
		all = append(all, f.message(t, d, members.Get(i)).Interface())
	}
	return all
}

func (f *filler) message(t *testing.T, d protoreflect.MessageDescriptor, member protoreflect.FieldDescriptor) protoreflect.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	m := kind.New()
	if member == nil && d.Oneofs().Len() > 0 {
		member = d.Oneofs().Get(0).Fields().Get(0)
	}
	for i := range d.Fields().Len() {
		field := d.Fields().Get(i)
		if field.ContainingOneof() == nil || field == member {
			f.set(t, m, field)
		}
	}
	return m
}

func (f *filler) set(t *testing.T, m protoreflect.Message, field protoreflect.FieldDescriptor) {
	t.Helper()
	switch {
	case field.IsMap():
		m.Mutable(field).Map().Set(f.value(t, field.MapKey()).MapKey(), f.value(t, field.MapValue()))
	case field.IsList():
		list := m.Mutable(field).List()
		list.Append(f.value(t, field))
		list.Append(f.value(t, field))
	default:
		m.Set(field, f.value(t, field))
	}
}

func (f *filler) value(t *testing.T, field protoreflect.FieldDescriptor) protoreflect.Value {
	t.Helper()
	f.n++
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("s%d", f.n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0, 0xff, byte(f.n)})
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(-f.n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(f.n << 32)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<63 + uint64(f.n))
	case protoreflect.MessageKind:
		return protoreflect.ValueOfMessage(f.message(t, field.Message(), nil))
	}
	t.Fatalf("%s: this test can't fill a %s yet", field.FullName(), field.Kind())
	return protoreflect.Value{}
}
