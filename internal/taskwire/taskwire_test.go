package taskwire_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"ecs/internal/access"
	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// The fields that are not carried on purpose.
var derived = map[string]bool{
	"Node.Reserved": true,
	"Node.Attempts": true,
}

// pair is one domain type with its way over the wire and back.
type pair struct {
	name    string
	value   any // pointer to a domain value to fill
	through func(t *testing.T, v any) any
}

// over marshals m into a new message of its kind, as the network would.
func over[M proto.Message](t *testing.T, m M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("marshal %T: %v", m, err)
	}
	out := m.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatalf("unmarshal %T: %v", m, err)
	}
	return out
}

func pairs() []pair {
	return []pair{
		{"Task", &task.Task{}, func(t *testing.T, v any) any {
			return taskwire.ToTask(over(t, taskwire.FromTask(v.(*task.Task))))
		}},
		{"Spec", &task.Spec{}, func(t *testing.T, v any) any {
			return new(taskwire.ToSpec(over(t, taskwire.FromSpec(*v.(*task.Spec)))))
		}},
		{"Attempt", &task.Attempt{}, func(t *testing.T, v any) any {
			return new(taskwire.ToAttempt(over(t, taskwire.FromAttempt(*v.(*task.Attempt)))))
		}},
		{"Result", &task.Result{}, func(t *testing.T, v any) any {
			return taskwire.ToResult(over(t, taskwire.FromResult(v.(*task.Result))))
		}},
		{"Stream", &task.Stream{}, func(t *testing.T, v any) any {
			return new(taskwire.ToStream(over(t, taskwire.FromStream(*v.(*task.Stream)))))
		}},
		{"Bill", &task.Bill{}, func(t *testing.T, v any) any {
			return new(taskwire.ToBill(over(t, taskwire.FromBill(*v.(*task.Bill)))))
		}},
		{"Node", &task.Node{}, func(t *testing.T, v any) any {
			return taskwire.ToNode(over(t, taskwire.FromNode(v.(*task.Node))))
		}},
		{"Token", &task.Token{}, func(t *testing.T, v any) any {
			return new(taskwire.ToToken(over(t, taskwire.FromToken(*v.(*task.Token)))))
		}},
		{"APIKey", &access.Key{}, func(t *testing.T, v any) any {
			return taskwire.ToKey(over(t, taskwire.FromKey(v.(*access.Key))))
		}},
		{"JoinToken", &access.Token{}, func(t *testing.T, v any) any {
			return taskwire.ToJoinToken(over(t, taskwire.FromJoinToken(v.(*access.Token))))
		}},
		{"Revoked", &access.Revoked{}, func(t *testing.T, v any) any {
			return taskwire.ToRevoked(over(t, taskwire.FromRevoked(v.(*access.Revoked))))
		}},
		{"Secrets", &task.Secrets{}, func(t *testing.T, v any) any {
			return taskwire.ToSecrets(over(t, taskwire.FromSecrets(v.(*task.Secrets))))
		}},
	}
}

func TestEveryFieldComesBackOverTheWire(t *testing.T) {
	for _, p := range pairs() {
		t.Run(p.name, func(t *testing.T) {
			f := filler{}
			f.fill(t, p.name, reflect.ValueOf(p.value).Elem())
			if f.n == 0 {
				t.Fatalf("nothing of %s was filled", p.name)
			}
			got := p.through(t, p.value)
			if !reflect.DeepEqual(got, p.value) {
				t.Errorf("got  %+v\nwant %+v", got, p.value)
			}
		})
	}
}

// A field that is carried, but into another's place, shows only when it is the
// only one that is set.
func TestEachFieldComesBackAlone(t *testing.T) {
	for _, p := range pairs() {
		full := reflect.New(reflect.TypeOf(p.value).Elem())
		f := filler{}
		f.fill(t, p.name, full.Elem())
		for i := range full.Elem().NumField() {
			name := full.Elem().Type().Field(i).Name
			if derived[p.name+"."+name] {
				continue
			}
			t.Run(p.name+"."+name, func(t *testing.T) {
				one := reflect.New(full.Elem().Type())
				one.Elem().Field(i).Set(full.Elem().Field(i))
				if got := p.through(t, one.Interface()); !reflect.DeepEqual(got, one.Interface()) {
					t.Errorf("got  %+v\nwant %+v", got, one.Interface())
				}
			})
		}
	}
}

// Every field of a message that a full domain value leaves empty is one that
// its conversion forgot.
func TestNoFieldOfAMessageIsForgotten(t *testing.T) {
	messages := map[string]proto.Message{}
	for _, p := range pairs() {
		f := filler{}
		f.fill(t, p.name, reflect.ValueOf(p.value).Elem())
		switch v := p.value.(type) {
		case *task.Task:
			messages[p.name] = taskwire.FromTask(v)
		case *task.Node:
			messages[p.name] = taskwire.FromNode(v)
		case *task.Secrets:
			messages[p.name] = taskwire.FromSecrets(v)
		case *task.Token:
			messages[p.name] = taskwire.FromToken(*v)
		}
	}
	for name, m := range messages {
		checkSet(t, name, m.ProtoReflect())
	}
}

func checkSet(t *testing.T, path string, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		at := path + "." + string(field.Name())
		if !m.Has(field) {
			t.Errorf("%s is empty, want it filled", at)
			continue
		}
		switch {
		case field.IsMap() || field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			checkSet(t, at+"[0]", m.Get(field).List().Get(0).Message())
		default:
			checkSet(t, at, m.Get(field).Message())
		}
	}
}

// filler gives every field a value that no other has.
type filler struct{ n int }

func (f *filler) fill(t testing.TB, path string, v reflect.Value) {
	t.Helper()
	if derived[path] {
		return
	}
	f.n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1_700_000_000, int64(f.n)).UTC()))
		return
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			f.fill(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.n % 256))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(t, path+"[0]", v.Index(0))
		f.fill(t, path+"[1]", v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			f.fill(t, path+"[]", v.Index(i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(t, path+"{key}", key)
		f.fill(t, path+"{}", value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(t, path, v.Elem())
	default:
		t.Fatalf("%s: this test can't fill a %s yet", path, v.Type())
	}
}

func TestNilIsNothing(t *testing.T) {
	if m := taskwire.FromTask(nil); m != nil {
		t.Errorf("FromTask(nil): got %v, want nil", m)
	}
	if v := taskwire.ToTask(nil); v != nil {
		t.Errorf("ToTask(nil): got %v, want nil", v)
	}
	if v := taskwire.ToResult(taskwire.FromResult(nil)); v != nil {
		t.Errorf("result: got %v, want nil", v)
	}
	if v := taskwire.ToNode(taskwire.FromNode(nil)); v != nil {
		t.Errorf("node: got %v, want nil", v)
	}
	if v := taskwire.ToSecrets(taskwire.FromSecrets(nil)); v != nil {
		t.Errorf("secrets: got %v, want nil", v)
	}
	if v := taskwire.ToError(taskwire.FromError(nil)); v != nil {
		t.Errorf("error: got %v, want nil", v)
	}
	if err := taskwire.ToErr(nil); err != nil {
		t.Errorf("ToErr(nil): got %v, want nil", err)
	}
	if v := taskwire.ToSpec(nil); !reflect.DeepEqual(v, task.Spec{}) {
		t.Errorf("ToSpec(nil): got %+v, want the zero spec", v)
	}
	if v := taskwire.ToStream(nil); !reflect.DeepEqual(v, task.Stream{}) {
		t.Errorf("ToStream(nil): got %+v, want the zero stream", v)
	}
}

func TestAnEmptyEntrypointIsNotAnAbsentOne(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []string
	}{
		{"absent", nil},
		{"empty", []string{}},
		{"set", []string{"sh", "-c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := taskwire.ToSpec(over(t, taskwire.FromSpec(task.Spec{Entrypoint: tt.in}))).Entrypoint
			if !reflect.DeepEqual(got, tt.in) {
				t.Errorf("got %#v, want %#v", got, tt.in)
			}
		})
	}
}

func TestSecretsWithoutCredentialsHaveNone(t *testing.T) {
	got := taskwire.ToSecrets(over(t, taskwire.FromSecrets(&task.Secrets{Env: []string{"A=b"}})))
	if got.Auth != nil {
		t.Errorf("got %+v, want no credentials", got.Auth)
	}
	empty := taskwire.ToSecrets(over(t, taskwire.FromSecrets(&task.Secrets{Auth: &task.RegistryAuth{}})))
	if empty.Auth == nil {
		t.Error("got no credentials, want empty ones")
	}
}

func TestTimesKeepTheirNanoseconds(t *testing.T) {
	for _, want := range []time.Time{
		{},
		time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), // a test bubble's start
		time.Date(2026, 11, 23, 12, 44, 1, 123456789, time.UTC),
		time.Date(1969, 12, 31, 23, 59, 59, 999, time.UTC),
	} {
		if got := taskwire.ToTime(taskwire.FromTime(want)); !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	zoned := time.Date(2026, 11, 23, 12, 0, 0, 0, time.FixedZone("", 3600))
	if got := taskwire.ToTime(taskwire.FromTime(zoned)); !got.Equal(zoned) || got.Location() != time.UTC {
		t.Errorf("got %v, want %v in UTC", got, zoned)
	}
}

func TestAHashOfAnotherLengthIsNone(t *testing.T) {
	for _, n := range []int{0, 1, 31, 33} {
		if got := taskwire.ToStream(&ecsv1.Stream{Sha256: make([]byte, n)}).SHA256; got != [32]byte{} {
			t.Errorf("%d bytes: got %x, want none", n, got)
		}
	}
}

func TestRefusalsKeepTheirCodeAndText(t *testing.T) {
	refusal := &task.Error{Code: task.CodeQueueFull, Message: "100000 tasks wait already"}
	got := taskwire.ToErr(over(t, taskwire.RefusalOf(fmt.Errorf("submit: %w", refusal))))
	if !errors.Is(got, &task.Error{Code: task.CodeQueueFull}) || got.Error() != refusal.Message {
		t.Errorf("got %v, want %v", got, refusal)
	}
	if m := taskwire.RefusalOf(errors.New("disk")); m != nil {
		t.Errorf("got %v, want nil for what is no refusal", m)
	}
	faulty := &task.Error{Code: task.CodeInvalidTask, Message: "the task is not valid",
		Faults: []task.Fault{{Pointer: "/image", Detail: "is missing"}}}
	if got := taskwire.ToError(taskwire.FromError(faulty)).Message; got != faulty.Error() {
		t.Errorf("got %q, want %q", got, faulty.Error())
	}
}

// Whatever bytes arrive, reading them gives a record that survives being
// written again.
func FuzzTask(f *testing.F) {
	for _, p := range pairs() {
		if v, ok := p.value.(*task.Task); ok {
			full := filler{}
			full.fill(f, p.name, reflect.ValueOf(v).Elem())
			b, err := proto.Marshal(taskwire.FromTask(v))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte{0x5a, 0x00}) // an attempt with nothing in it
	f.Fuzz(func(t *testing.T, b []byte) {
		var m ecsv1.Task
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		once := taskwire.ToTask(&m)
		twice := taskwire.ToTask(over(t, taskwire.FromTask(once)))
		if !reflect.DeepEqual(once, twice) {
			t.Errorf("got  %+v\nwant %+v", twice, once)
		}
	})
}
