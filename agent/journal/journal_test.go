package journal

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ecs/internal/task"
)

func at(dir string) *Journal { return New(dir, slog.New(slog.DiscardHandler)) }

func load(t *testing.T, dir string) (*Journal, []Record, Lease) {
	t.Helper()
	j := at(dir)
	left, err := j.Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, left.Records, left.Lease
}

func token(n int) task.Token { return task.Token{Task: "../../t", Attempt: n, Epoch: 7} }

// record is one with everything in it.
func record(n int) Record {
	now := time.Unix(1_700_000_000, 5).UTC()
	return Record{Token: token(n), CID: "cid", Owner: "key", Begun: now, Digest: "sha256:1", Output: "name-1-7-1",
		Spec: task.Spec{Image: "busybox:1", Command: []string{"echo", "hi"}, Secrets: []byte("sealed"), Stdin: []byte("typed"),
			Files: []task.File{{Path: "/f", Content: []byte("hidden")}}}.WithDefaults(task.V2, true),
		Bill: task.Bill{Image: 1, Create: 2}, Stop: &Stop{Outcome: task.Cancelled, Reason: "asked"},
		Result:    &task.Result{Outcome: task.Exited, HasExit: true, ExitCode: 3, Stdout: task.Stream{Head: []byte("hi"), Bytes: 2, Kept: 2}},
		StartedAt: now.Add(1), EndedAt: now.Add(2)}
}

func TestRecordsComeBackWithoutSecrets(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := load(t, dir)
	full, bare := record(1), Record{Token: token(2), Begun: time.Unix(1, 0).UTC()}
	for _, r := range []Record{full, bare} {
		if err := j.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	_, records, _ := load(t, dir)
	full.Spec = full.Spec.Wiped()
	bare.Spec = records[1].Spec // nil and empty lists are one
	if want := []Record{full, bare}; !reflect.DeepEqual(records, want) {
		t.Errorf("got %+v, want %+v", records, want)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"sealed", "typed", "hidden", "c2VhbGVk"} {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s has %q in it", f, secret)
			}
		}
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, %v, want 0600", f, info.Mode(), err)
		}
	}
	j.Remove(token(1))
	j.Remove(token(2))
	if _, records, _ := load(t, dir); len(records) != 0 {
		t.Errorf("got %v after their removal, want none", records)
	}
}

func TestTheLeaseIsRewrittenInPlace(t *testing.T) {
	dir := t.TempDir()
	j, _, lease := load(t, dir)
	if lease.Of("") || lease.Of("boot") {
		t.Error("got a lease of a new journal, want none")
	}
	for n := range 3 {
		l := Lease{Boot: "boot", Epoch: 7, Contact: time.Duration(n) * time.Second, Length: task.DefaultLease}
		if err := j.SetLease(l); err != nil {
			t.Fatal(err)
		}
		_, _, got := load(t, dir)
		if !got.Of("boot") || got.Of("another") || got.Epoch != l.Epoch || got.Contact != l.Contact || got.Length != l.Length {
			t.Errorf("got %+v, want %+v", got, l)
		}
	}
}

func TestDamagedFilesAreRefusedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := load(t, dir)
	for n := 1; n <= 4; n++ {
		if err := j.Put(record(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.SetLease(Lease{Boot: "b", Epoch: 1, Length: time.Second}); err != nil {
		t.Fatal(err)
	}
	path := func(n int) string { return filepath.Join(dir, fileName(token(n))) }
	for _, err := range []error{
		os.Truncate(path(1), 100), os.WriteFile(path(2), nil, 0o600), os.Rename(path(3), path(5)),
		os.WriteFile(path(4)+suffixTemp, []byte("half"), 0o600), os.Truncate(filepath.Join(dir, leaseName), 20),
		os.WriteFile(filepath.Join(dir, "stranger"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	left, err := at(dir).Load()
	if err != nil || len(left.Records) != 1 || left.Records[0].Token != token(4) || left.Lease.Of("b") || left.Refused != 3 {
		t.Errorf("got %+v, %v, want the one whole record and 3 refused", left, err)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 2 {
		t.Errorf("got %v, want the whole record and the stranger's file", files)
	}
}

func TestABrokenDirectoryIsSaidUntilItIsMended(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, _, _ := load(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Put(record(1)); err == nil || j.Check() == nil || j.Attempts() != 0 {
		t.Errorf("got %v, %v with %d attempts, want errors and none", err, j.Check(), j.Attempts())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Check(), j.Put(record(1)), j.Check()); err != nil {
		t.Error(err)
	}
}

func TestTheJournalIsBounded(t *testing.T) {
	j, _, _ := load(t, t.TempDir())
	for n := range maxRecords {
		j.mu.records[token(n+10)] = true
	}
	if err := j.Put(record(1)); err == nil || j.Check() == nil {
		t.Error("got one more attempt than there may be, want an error")
	}
	delete(j.mu.records, token(10))
	j.mu.failed = nil
	large := record(2)
	large.Spec.Env = []string{strings.Repeat("x", maxRecord)}
	if err := j.Put(large); err == nil || j.Attempts() != maxRecords-1 {
		t.Errorf("got %v with %d attempts, want an attempt too large refused", err, j.Attempts())
	}
}

func TestAnAbandonedJournalIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := load(t, dir)
	if err := j.Put(record(1)); err != nil {
		t.Fatal(err)
	}
	j.Abandon()
	j.Remove(token(1))
	if err := errors.Join(j.Put(record(2)), j.SetLease(Lease{Boot: "b", Epoch: 1, Length: 1})); err != nil {
		t.Fatal(err)
	}
	_, records, lease := load(t, dir)
	if len(records) != 1 || records[0].Token != token(1) || lease.Epoch != 0 {
		t.Errorf("got %+v and %+v, want what was there", records, lease)
	}
}

func TestWithoutADirectoryNothingIsKept(t *testing.T) {
	j, records, lease := load(t, "")
	if err := errors.Join(j.Put(record(1)), j.SetLease(Lease{Epoch: 1}), j.Check()); err != nil || len(records) != 0 || lease.Of("") {
		t.Errorf("got %v, %v, %v, want nothing", err, records, lease)
	}
	j.Remove(token(1))
}

func BenchmarkPut(b *testing.B) {
	j := at(b.TempDir())
	if _, err := j.Load(); err != nil {
		b.Fatal(err)
	}
	r := record(1)
	for b.Loop() {
		if err := j.Put(r); err != nil {
			b.Fatal(err)
		}
		j.Remove(r.Token)
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := encode(record(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(seal(recordMagic, []byte(`{"token":"CgF0EAEYBw==","result":""}`)))
	f.Add(encodeLease(Lease{Boot: "b", Epoch: 1, Contact: 2, Length: 3}))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The sum keeps out what is broken by chance; behind it is what is
		// broken on purpose.
		for _, file := range [][]byte{data, seal(recordMagic, data), seal(leaseMagic, data)} {
			if l, err := decodeLease(file); err == nil && (l.Length <= 0 || l.Contact < 0) {
				t.Errorf("got lease %+v", l)
			}
			r, err := decode(file)
			if err != nil {
				continue
			}
			if r.Token.Task == "" || r.Spec.Secrets != nil {
				t.Errorf("got %+v, want a token and no secrets", r)
			}
			again, err := encode(r)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := decode(again); err != nil || back.Token != r.Token {
				t.Errorf("got %+v, %v after a round trip, want %+v", back, err, r)
			}
		}
	})
}
