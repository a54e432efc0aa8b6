package initwire

import (
	"encoding/binary"
	"fmt"
)

func (o Order) append(b []byte) []byte {
	b = putStrings(putStrings(b, o.Argv), o.Env)
	b = putStrings(putBytes(putBytes(b, o.Workdir), o.User), o.Groups)
	b = putBools(b, o.TTY != nil)
	if o.TTY != nil {
		b = o.TTY.append(b)
	}
	b = putBytes(append(b, byte(o.Stdin)), o.Input)
	b = binary.AppendUvarint(b, uint64(len(o.Files)))
	for _, f := range o.Files {
		b = putBytes(putInt(putBytes(b, f.Path), int64(f.Mode)), f.Content)
	}
	b = binary.AppendUvarint(b, uint64(len(o.Rlimits)))
	for _, r := range o.Rlimits {
		b = putInt(putInt(putInt(b, int64(r.Resource)), int64(r.Soft)), int64(r.Hard))
	}
	b = putInt(putInt(b, int64(o.RunLimit)), int64(o.Lease))
	return putInt(putInt(putInt(b, int64(o.OOMScoreAdj)), int64(o.Caps)), int64(o.Umask))
}

func (d *decoder) order() Order {
	o := Order{Argv: d.strings(), Env: d.strings(), Workdir: d.string(), User: d.string(), Groups: d.strings()}
	var tty bool
	if d.bools(&tty); tty {
		o.TTY = &Size{d.size(), d.size()}
	}
	if o.Stdin = StdinMode(d.byte()); o.Stdin > StdinStream {
		d.failed = true
	}
	o.Input = d.bytes()
	for n := d.count(); n > 0 && !d.failed; n-- {
		o.Files = append(o.Files, File{Path: d.string(), Mode: d.uint32(), Content: d.bytes()})
	}
	for n := d.count(); n > 0 && !d.failed; n-- {
		o.Rlimits = append(o.Rlimits, Rlimit{int(d.int()), uint64(d.int()), uint64(d.int())})
	}
	o.RunLimit, o.Lease = d.duration(), d.duration()
	o.OOMScoreAdj, o.Caps, o.Umask = int(d.int()), uint64(d.int()), d.uint32()
	return o
}

func (d *decoder) uint32() uint32 {
	v := d.int()
	if v != int64(uint32(v)) {
		d.failed = true
		return 0
	}
	return uint32(v)
}

// AppendOrder gives an order's bytes, as stage 2 of init gets them.
func AppendOrder(to []byte, o Order) []byte { return o.append(to) }

// ParseOrder reads what AppendOrder wrote.
func ParseOrder(p []byte) (Order, error) {
	d := decoder{rest: p}
	o := d.order()
	if d.failed || len(d.rest) != 0 {
		return Order{}, fmt.Errorf("order of %d bytes: %w", len(p), errMalformed)
	}
	return o, nil
}
