package state_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ecs/control/state"
)

// With -add the test writes the log and snapshot of this version beside those
// of earlier ones. They are only ever added: some cluster may hold such a log.
var addReplay = flag.Bool("add", false, "add this version's log and snapshot to testdata/replay")

const replays = "testdata/replay"

// A log that an earlier version wrote gives, applied by this one, the record
// that the earlier version had: otherwise two control nodes of different
// versions would differ.
func TestOldLogsMakeTheSameRecord(t *testing.T) {
	logs, err := filepath.Glob(filepath.Join(replays, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	if *addReplay {
		logs = append(logs, writeReplay(t, filepath.Join(replays, fmt.Sprintf("%04d.log", len(logs)+1))))
	}
	if len(logs) == 0 {
		t.Fatalf("no logs in %s", replays)
	}
	for _, name := range logs {
		t.Run(filepath.Base(name), func(t *testing.T) {
			applied := state.NewStore(modelLimits)
			for i, entry := range readLog(t, name) {
				if _, err := applied.Apply(uint64(i+1), entry); err != nil {
					t.Fatalf("entry %d: %v", i+1, err)
				}
			}
			image, err := os.ReadFile(strings.TrimSuffix(name, ".log") + ".snapshot")
			if err != nil {
				t.Fatal(err)
			}
			restored := state.NewStore(modelLimits)
			if err := restored.Restore(bytes.NewReader(image)); err != nil {
				t.Fatal(err)
			}
			same(t, applied.Snapshot(), restored.Snapshot())
		})
	}
}

func writeReplay(t *testing.T, name string) string {
	t.Helper()
	m := newModel(t, 1)
	for range 400 {
		m.step()
	}
	var log bytes.Buffer
	for _, e := range m.w.log {
		log.Write(binary.AppendUvarint(nil, uint64(len(e))))
		log.Write(e)
	}
	if err := os.MkdirAll(replays, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string][]byte{
		name: log.Bytes(),
		strings.TrimSuffix(name, ".log") + ".snapshot": written(t, m.w.sn()),
	} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("wrote %s", path)
	}
	return name
}

func readLog(t *testing.T, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(bytes.NewReader(b))
	var entries [][]byte
	for {
		n, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e := make([]byte, n)
		if _, err := io.ReadFull(r, e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		entries = append(entries, e)
	}
}
