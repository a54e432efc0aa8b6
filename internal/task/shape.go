package task

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"
)

// Shape is what of a spec is fixed once its container has started: everything
// that an engine is told of it. The rest (command, environment, user, working
// directory, files, input, terminal, limits of time) comes with the order, so a
// started container without an order fits every task of its shape. Two shapes
// are the same if they are equal.
type Shape struct {
	Image     string // the spec's reference; on a node, the engine's id of it
	Network   Network
	Resources Resources
	CapAdd    string // names parted by commas, sorted
	// DefaultCaps is Spec.DefaultCaps.
	DefaultCaps bool
}

// Shape gives the spec's.
func (s *Spec) Shape() Shape {
	caps := s.CapAdd
	if !slices.IsSorted(caps) {
		caps = slices.Sorted(slices.Values(caps))
	}
	return Shape{Image: s.Image, Network: s.Network, Resources: s.Resources, CapAdd: strings.Join(caps, ","), DefaultCaps: s.DefaultCaps}
}

// Caps names the capabilities that are added, or nil.
func (s Shape) Caps() []string {
	if s.CapAdd == "" {
		return nil
	}
	return strings.Split(s.CapAdd, ",")
}

// Hash tells shapes apart in hints, where a wrong guess costs some time and
// nothing else. Agents and control nodes of one release give the same.
func (s Shape) Hash() uint64 {
	h := fnv.New64a()
	var b []byte
	for _, text := range []string{s.Image, string(s.Network), s.CapAdd} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	for _, n := range []int64{s.Resources.MilliCPU, s.Resources.MilliCPULimit, s.Resources.Memory, s.Resources.Pids} {
		b = binary.AppendVarint(b, n)
	}
	if s.DefaultCaps {
		b = append(b, 1)
	}
	_, _ = h.Write(b) // it never fails
	return h.Sum64()
}
