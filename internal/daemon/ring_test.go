package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"testing"

	"ecs/internal/clusterfiles"
	"ecs/internal/gossip"
)

func TestARestartComesBackWithTheRingUntilAnotherKeyIsSet(t *testing.T) {
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, gossip.KeySize) }
	path := t.TempDir()
	began := func(file []byte) *gossip.Keyring {
		t.Helper()
		d, err := OpenDataDir(path, "n1")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		k, err := d.Keyring(file)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := began(key(1))
	if r := k.Ring(); r.Version != 0 || !bytes.Equal(r.Keys[0], key(1)) {
		t.Errorf("got %+v at first, want the key of the settings", r)
	}
	if err := k.Install(gossip.Ring{Version: 7, Keys: [][]byte{key(2), key(1)}}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "/" + clusterfiles.GossipRing); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file for its owner alone", info, err)
	}
	if r := began(key(1)).Ring(); r.Version != 7 || len(r.Keys) != 2 || !bytes.Equal(r.Keys[0], key(2)) {
		t.Errorf("got %+v after a restart", r)
	}
	k = began(key(3))
	if r := k.Ring(); r.Version != 0 || !bytes.Equal(r.Keys[0], key(3)) {
		t.Errorf("got %+v, want the key that an operator has put into the settings since", r)
	}
	if err := k.Install(gossip.Ring{Version: 7, Keys: [][]byte{key(2)}}); err != nil {
		t.Fatal(err)
	}
	if r := began(key(3)).Ring(); r.Version != 7 {
		t.Errorf("got %+v, want what the cluster gave after that", r)
	}
	if err := os.WriteFile(path+"/"+clusterfiles.GossipRing, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDataDir(path, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Keyring(key(3)); err == nil {
		t.Error("a file that is damaged was passed over: the node would be locked out and not say why")
	}
}

func TestControlNodesAreRememberedByBothAddresses(t *testing.T) {
	d, err := OpenDataDir(t.TempDir(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	log := slog.New(slog.DiscardHandler)
	list := addressList{file: controlsFile, of: func(m gossip.Member) string { return m.RPCAddr }}
	list.keep(d, gossip.New(gossip.Config{Self: gossip.Member{ID: "c1", Role: "control", RPCAddr: "h1:7448"}}), log)
	if got := d.Controls(log); len(got) != 0 {
		t.Errorf("got %v, want nobody but others", got)
	}
	list.keep(d, gossip.New(gossip.Config{Self: gossip.Member{ID: "a1", Role: "agent"}}), log)
	other := gossip.New(gossip.Config{Name: "x", Self: gossip.Member{ID: "c1", Role: "control", RPCAddr: "h1:7448"}})
	if got := peers(other, list.of, []string{"h2:7448", "h1:7448"}); !slices.Equal(got, []string{"h2:7448"}) {
		t.Errorf("got %v, want who was there before, and not oneself", got)
	}
	if got := GuessControls([]string{"h1:7946", "[::1]:7946", "bad"}); !slices.Equal(got, []string{"h1:7448", "[::1]:7448"}) {
		t.Errorf("got %v", got)
	}
}
