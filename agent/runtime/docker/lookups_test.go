package docker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ecs/agent/runtime"
)

func TestLookupsAreBelievedWhileNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lookups
		known := func() bool { _, known, _ := l.get("a"); return known }
		look := func() { _, _, v := l.get("a"); l.put("a", runtime.StoredImage{ID: "1"}, v) }
		if look(); known() {
			t.Error("believed while the engine is not listened to")
		}
		yes, no := true, false
		l.hear(&yes)
		if look(); !known() {
			t.Error("not believed")
		}
		if l.forget(); known() {
			t.Error("believed after something happened")
		}
		_, _, before := l.get("a")
		l.forget()
		if l.put("a", runtime.StoredImage{}, before); known() {
			t.Error("believed though something happened while the engine was asked")
		}
		look()
		if l.hear(&no); known() {
			t.Error("believed after the engine broke off")
		}
		l.hear(&yes)
		look()
		time.Sleep(lookupFor)
		if known() {
			t.Errorf("believed after %s", lookupFor)
		}
		if refs, v := l.wanted(); len(refs) != 1 || refs[0] != "a" {
			t.Errorf("to be looked up anew: got %v, want a", refs)
		} else if l.put("a", runtime.StoredImage{}, v); !known() {
			t.Error("not believed after it was looked up anew")
		}
		time.Sleep(wantedFor + time.Second)
		if refs, _ := l.wanted(); len(refs) != 0 {
			t.Errorf("nobody asked for it in %s: got %v, want none", wantedFor, refs)
		}
		for i := range 2 * maxLookups {
			_, _, v := l.get("a")
			l.put(fmt.Sprint(i), runtime.StoredImage{}, v)
		}
		if n := len(l.known); n > maxLookups {
			t.Errorf("got %d remembered, want at most %d", n, maxLookups)
		}
	})
}
