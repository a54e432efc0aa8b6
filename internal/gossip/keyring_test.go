package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

func testKey(n byte) []byte { return append(make([]byte, KeySize-1), n) }

func keyring(t *testing.T, start Ring) *Keyring {
	t.Helper()
	k, err := NewKeyring(start, func(Ring) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// inUse is what memberlist has, in its order.
func inUse(k *Keyring) (keys string) {
	for _, key := range k.list.GetKeys() {
		keys += fmt.Sprint(key[KeySize-1])
	}
	return keys
}

// Whatever ring a member missed the change from, it has exactly the next one, while
// others read.
func TestEveryRingFollowsEveryOther(t *testing.T) {
	var rings [][][]byte
	for a := range byte(4) {
		rings = append(rings, [][]byte{testKey(a)})
		for b := range byte(4) {
			if a != b {
				rings = append(rings, [][]byte{testKey(a), testKey(b)})
			}
		}
	}
	for _, from := range rings {
		for _, to := range rings {
			k := keyring(t, Ring{Keys: from})
			var reading sync.WaitGroup
			reading.Go(func() { // the race detector's part
				for range 10 {
					for _, key := range k.list.GetKeys() {
						_ = bytes.Equal(key, from[0])
					}
				}
			})
			if err := k.Install(Ring{Version: 1, Keys: to}); err != nil {
				t.Fatal(err)
			}
			reading.Wait()
			if want := inUse(keyring(t, Ring{Keys: to})); inUse(k) != want {
				t.Errorf("from %v to %v: got %s, want %s", from, to, inUse(k), want)
			}
		}
	}
}

func TestARingIsKeptBeforeItIsUsedAndOldOnesAreNotTaken(t *testing.T) {
	var kept []uint64
	full := errors.New("disk full")
	var fail error
	k, err := NewKeyring(Ring{Version: 3, Keys: [][]byte{testKey(1)}}, func(r Ring) error {
		kept = append(kept, r.Version)
		return fail
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range []uint64{0, 2, 3} {
		if err := k.Install(Ring{Version: old, Keys: [][]byte{testKey(2)}}); err != nil || inUse(k) != "1" {
			t.Errorf("version %d after 3: got %v and keys %s, want it passed over", old, err, inUse(k))
		}
	}
	fail = full
	if err := k.Install(Ring{Version: 4, Keys: [][]byte{testKey(2)}}); !errors.Is(err, full) || inUse(k) != "1" || k.Ring().Version != 3 {
		t.Errorf("got %v and keys %s, want the old ring as long as the new one is not kept", err, inUse(k))
	}
	fail = nil
	if err := k.Install(Ring{Version: 4, Keys: [][]byte{testKey(2)}}); err != nil || inUse(k) != "2" || !slices.Equal(kept, []uint64{4, 4}) {
		t.Errorf("got %v, keys %s, kept %v", err, inUse(k), kept)
	}
	for _, bad := range []Ring{{Version: 5}, {Version: 5, Keys: [][]byte{{1}}}, {Version: 5, Keys: [][]byte{testKey(1), testKey(2), testKey(3)}}} {
		if err := k.Install(bad); err == nil {
			t.Errorf("%v: want it refused", bad)
		}
	}
}

// The key changes in three steps, at each member at another time, and nobody is lost;
// then the old key opens nothing.
func TestAKeyRotatesUnderGossipAndTheOldOneIsLockedOut(t *testing.T) {
	inBubbleWith(t, 6, func(c *Config) {
		c.Keys = keyring(t, Ring{Keys: [][]byte{testKey(1)}})
	}, func(s *swarm) {
		s.net.Isolate("m5")
		s.until(time.Minute, "the one that is cut off is gone", func() bool { return s.see(5, s.members[:5]...) })
		for step, keys := range [][][]byte{{testKey(1), testKey(2)}, {testKey(2), testKey(1)}, {testKey(2)}} {
			for i := range 5 {
				if err := s.members[i].cfg.Keys.Install(Ring{Version: uint64(step + 1), Keys: keys}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				if !s.see(5, s.members[:5]...) {
					t.Fatalf("step %d, %d members in: somebody was lost", step+1, i+1)
				}
			}
		}
		s.net.HealAll()
		outsider := s.add() // with the old key
		time.Sleep(time.Minute)
		if !s.see(5, s.members[:5]...) || s.see(6, s.members[5]) || s.see(6, outsider) {
			t.Errorf("got %d members, want those with the new key alone", len(s.members[0].Snapshot()))
		}
		if err := s.members[5].cfg.Keys.Install(Ring{Version: 3, Keys: [][]byte{testKey(2)}}); err != nil {
			t.Fatal(err)
		}
		s.until(time.Minute, "the one that was cut off is back", func() bool { return s.see(6, s.members[:6]...) })
		if len(outsider.Snapshot()) > 2 {
			t.Errorf("the outsider sees %d members", len(outsider.Snapshot()))
		}
	})
}
