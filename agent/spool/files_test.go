package spool

import (
	"encoding/json"
	"testing"

	"ecs/internal/task"
)

func FuzzDecodeMeta(f *testing.F) {
	good, err := json.Marshal(meta{Task: "t", Attempt: 1, Epoch: 2, Stdout: metaStream{Bytes: 3, Kept: 2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"task":"t","stdout":{"bytes":-1,"kept":-2}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMeta(data)
		if err != nil {
			return
		}
		for _, s := range []metaStream{m.Stdout, m.Stderr} {
			if s.Kept < 0 || s.Bytes < s.Kept {
				t.Errorf("got %+v, want 0 <= kept <= bytes", s)
			}
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeMeta(again); err != nil || back != m {
			t.Errorf("got %+v, %v after a round trip, want %+v", back, err, m)
		}
	})
}

func FuzzFileNamesStayInTheDirectory(f *testing.F) {
	f.Add("01abc", uint64(1))
	f.Add("../../etc/passwd", uint64(2))
	f.Fuzz(func(t *testing.T, id string, serial uint64) {
		name := fileName(task.Token{Task: task.ID(id), Attempt: 1, Epoch: 2}, serial)
		for _, c := range name {
			if c == '/' || c == '.' || c == 0 {
				t.Errorf("got name %q for id %q", name, id)
			}
		}
		if len(name) > 200 {
			t.Errorf("got a name of %d bytes", len(name))
		}
		if got := serialOf(name); got != serial {
			t.Errorf("got serial %d back, want %d", got, serial)
		}
	})
}
