package daemon

import (
	"strings"
	"testing"
	"time"
)

func TestDataDirBelongsToOneNodeAndOneProcess(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenDataDir(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(dir, "n1"); err == nil || !strings.Contains(err.Error(), "another process has it") {
		t.Errorf("second opening: got %v, want a refusal that says why", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDataDir(dir, "n2"); err == nil || !strings.Contains(err.Error(), "is that of node n1") {
		t.Errorf("other node: got %v, want a refusal that names n1", err)
	}
	again, err := OpenDataDir(dir, "n1")
	if err != nil {
		t.Fatalf("same node again: got %v, want it back", err)
	}
	again.Close()
}

func TestAdvertisedAddress(t *testing.T) {
	for _, tc := range []struct{ listen, host, want string }{
		{"127.0.0.1:7448", "", "127.0.0.1:7448"},
		{"10.1.2.3:7448", "", "10.1.2.3:7448"},
		{"0.0.0.0:7448", "node.example", "node.example:7448"},
		{"10.1.2.3:7448", "10.9.9.9", "10.9.9.9:7448"},
		{"[::1]:7448", "", "[::1]:7448"},
		{":7448", "10.9.9.9", "10.9.9.9:7448"},
	} {
		if got, err := Advertise(tc.listen, tc.host); err != nil || got != tc.want {
			t.Errorf("%s with %q: got %s, %v, want %s", tc.listen, tc.host, got, err, tc.want)
		}
	}
	if _, err := Advertise("7448", ""); err == nil {
		t.Error("an address without a port: got no error, want one")
	}
}

func TestLoopbackIsTold(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, ":1": false, "0.0.0.0:1": false, "10.0.0.1:1": false,
	} {
		if got := Loopback(listen); got != want {
			t.Errorf("%s: got %v, want %v", listen, got, want)
		}
	}
}

func TestBoottimeGoesForward(t *testing.T) {
	before := Boottime()
	if before <= 0 {
		t.Fatalf("got %v, want the time since boot", before)
	}
	if after := Boottime(); after < before || after > before+time.Minute {
		t.Errorf("got %v after %v", after, before)
	}
}
