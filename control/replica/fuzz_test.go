package replica

import (
	"bytes"
	"testing"

	"ecs/control/state"
)

// FuzzPreface reads what a peer says before anything else.
func FuzzPreface(f *testing.F) {
	f.Add(appendPreface(nil, state.Lineage{Cluster: "a", Recovery: "b"}))
	f.Add([]byte{prefaceMark, prefaceVersion, 255, 'x'})
	f.Add([]byte{0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readPreface(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := appendPreface(nil, l); !bytes.HasPrefix(b, again) {
			t.Errorf("%x reads as %+v, which is written as %x", b, l, again)
		}
	})
}
