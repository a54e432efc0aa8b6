package telemetry

import (
	"encoding/json"
	"io"
	"testing"
)

// FuzzLine reads a line of a log, as another node may send it.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","msg":"x","cid":"c1","owner":"o","task":"t"}`), "c1")
	f.Add([]byte(`{"msg":"Basic YWxpY2U6c2VjcmV0 https://u:p@host/ password=hunter2 ecsjoin1.abc","cid":"a\"b"}`), `a"b`)
	f.Add([]byte("not json"), "")
	f.Fuzz(func(t *testing.T, line []byte, cid string) {
		valid := json.Valid(line)
		if redacted := Redacted(line); valid && !json.Valid(redacted) {
			t.Errorf("%s is redacted to %s", line, redacted)
		}
		HeadOf(line)
		ring := NewRing(io.Discard, 1<<16)
		if _, err := ring.Write(line); err != nil {
			t.Fatal(err)
		}
		for _, found := range ring.Find(Search{CID: cid, Lines: 10, Bytes: 1 << 16}).Lines {
			if len(found) > 1<<16 {
				t.Errorf("%d bytes were found", len(found))
			}
		}
	})
}
