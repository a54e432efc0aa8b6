package fence

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStoreGivesBackWhatIsOfThisBoot(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	kept := Entry{ID: "a b\n\"", Cgroup: "/sys/fs/cgroup/pids/x", Deadline: time.Hour}
	old := Entry{ID: "old", Cgroup: "/sys/fs/cgroup/pids/y", Deadline: time.Hour}
	for _, e := range []Entry{kept, old, {ID: "removed", Cgroup: "/c", Deadline: 1}} {
		if err := s.save(e); err != nil {
			t.Fatal(err)
		}
	}
	kept.Deadline += time.Minute
	if err := s.move(kept.ID, kept.Deadline); err != nil {
		t.Fatal(err)
	}
	if err := s.remove("removed"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.file("old"))
	if err == nil {
		err = os.WriteFile(s.file("old"), bytes.Replace(text, []byte(s.boot), []byte("another-boot"), 1), 0o600)
	}
	for name, text := range map[string]string{"broken" + entryFile: "half a li", "x" + entryFile + newFile: "half", "mine": "not ours"} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}

	if s, err = openStore(dir); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var said bytes.Buffer
	got, err := s.load(slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil || !slices.Equal(got, []Entry{kept}) {
		t.Errorf("got %v, %v, want %v", got, err, kept)
	}
	if !strings.Contains(said.String(), "broken"+entryFile) {
		t.Errorf("got %q, want the broken file named", said.String())
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 4 { // kept, broken, mine, lock
		t.Errorf("got %v, want 4 files", left)
	}
}

func FuzzEntryFile(f *testing.F) {
	f.Add([]byte("00000000003600000000\nboot\n\"id\"\n\"/sys/fs/cgroup/pids/x\"\n"))
	f.Add([]byte("\n\n\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if e, _, err := parseEntry(text); err != nil && e.ID != "" && e.Cgroup != "" {
			t.Errorf("got %+v with an error", e)
		}
	})
}
