package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"google.golang.org/protobuf/proto"

	"ecs/internal/task"
	"ecs/internal/taskwire"
	ecsv1 "ecs/proto/ecs/v1"
)

// A file is its magic word, the sum of the body, and the body.
const (
	recordMagic = "ecsatt01"
	leaseMagic  = "ecslea01"
	headerSize  = 8 + 4
	leaseSize   = headerSize + sha256.Size + 3*8
)

var (
	errCorrupt = errors.New("it is damaged, or was not written to its end")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func seal(magic string, body []byte) []byte {
	file := append(make([]byte, 0, headerSize+len(body)), magic...)
	file = binary.LittleEndian.AppendUint32(file, crc32.Checksum(body, castagnoli))
	return append(file, body...)
}

func open(magic string, file []byte) ([]byte, error) {
	if len(file) < headerSize || string(file[:8]) != magic {
		return nil, errCorrupt
	}
	body := file[headerSize:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(file[8:]) {
		return nil, errCorrupt
	}
	return body, nil
}

// body is a Record in its file. What has a message of its own is in that.
type body struct {
	Token     []byte `json:"token"`
	Spec      []byte `json:"spec"`
	CID       string `json:"cid,omitempty"`
	Owner     string `json:"owner,omitempty"`
	Begun     int64  `json:"begun"`
	Digest    string `json:"digest,omitempty"`
	Output    string `json:"output,omitempty"`
	Bill      []byte `json:"bill,omitempty"`
	Stop      *Stop  `json:"stop,omitempty"`
	Result    []byte `json:"result,omitempty"`
	StartedAt int64  `json:"started_at,omitempty"`
	EndedAt   int64  `json:"ended_at,omitempty"`
}

func encode(r Record) ([]byte, error) {
	b := body{CID: r.CID, Owner: r.Owner, Begun: taskwire.FromTime(r.Begun), Digest: r.Digest, Output: r.Output, Stop: r.Stop,
		StartedAt: taskwire.FromTime(r.StartedAt), EndedAt: taskwire.FromTime(r.EndedAt)}
	messages := []struct {
		from proto.Message
		into *[]byte
	}{
		{taskwire.FromToken(r.Token), &b.Token},
		{taskwire.FromSpec(r.Spec.Wiped()), &b.Spec},
		{taskwire.FromBill(r.Bill), &b.Bill},
		{taskwire.FromResult(r.Result), &b.Result},
	}
	for _, m := range messages {
		data, err := proto.Marshal(m.from)
		if err != nil {
			return nil, err
		}
		*m.into = data
	}
	if r.Result == nil {
		b.Result = nil
	} else if b.Result == nil {
		b.Result = []byte{}
	}
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if len(text) > maxRecord-headerSize {
		return nil, fmt.Errorf("an attempt of %d bytes, the most is %d", len(text), maxRecord)
	}
	return seal(recordMagic, text), nil
}

func decode(file []byte) (Record, error) {
	if len(file) > maxRecord {
		return Record{}, fmt.Errorf("it has more than %d bytes", maxRecord)
	}
	text, err := open(recordMagic, file)
	if err != nil {
		return Record{}, err
	}
	var b body
	if err := json.Unmarshal(text, &b); err != nil {
		return Record{}, err
	}
	var token ecsv1.Token
	var spec ecsv1.Spec
	var bill ecsv1.Bill
	var result ecsv1.Result
	for _, m := range []struct {
		from []byte
		into proto.Message
	}{{b.Token, &token}, {b.Spec, &spec}, {b.Bill, &bill}, {b.Result, &result}} {
		if err := proto.Unmarshal(m.from, m.into); err != nil {
			return Record{}, err
		}
	}
	r := Record{Token: taskwire.ToToken(&token), Spec: taskwire.ToSpec(&spec).Wiped(), CID: b.CID, Owner: b.Owner,
		Begun: taskwire.ToTime(b.Begun), Digest: b.Digest, Output: b.Output, Bill: taskwire.ToBill(&bill), Stop: b.Stop,
		StartedAt: taskwire.ToTime(b.StartedAt), EndedAt: taskwire.ToTime(b.EndedAt)}
	if b.Result != nil {
		r.Result = taskwire.ToResult(&result)
	}
	if r.Token.Task == "" || r.Token.Attempt <= 0 || r.Token.Epoch == 0 {
		return Record{}, fmt.Errorf("%v is no attempt", r.Token)
	}
	return r, nil
}

// encodeLease gives the lease's file. It has always the same size, so that it
// can be written in place.
func encodeLease(l Lease) []byte {
	boot := sha256.Sum256([]byte(l.Boot))
	b := boot[:]
	b = binary.LittleEndian.AppendUint64(b, l.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Contact))
	b = binary.LittleEndian.AppendUint64(b, uint64(l.Length))
	return seal(leaseMagic, b)
}

// decodeLease gives the lease back, with the sum of Boot in its place: see Of.
func decodeLease(file []byte) (Lease, error) {
	b, err := open(leaseMagic, file)
	if err != nil {
		return Lease{}, err
	}
	if len(file) != leaseSize {
		return Lease{}, errCorrupt
	}
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(b[sha256.Size+8*i:]) }
	l := Lease{Boot: string(b[:sha256.Size]), Epoch: number(0), Contact: time.Duration(number(1)), Length: time.Duration(number(2))}
	if l.Contact < 0 || l.Length <= 0 || l.Length > task.MaxLease {
		return Lease{}, fmt.Errorf("a lease of %s since %s", l.Length, l.Contact)
	}
	return l, nil
}

// Of reports whether a lease that Load gave was written in that boot.
func (l Lease) Of(boot string) bool {
	sum := sha256.Sum256([]byte(boot))
	return boot != "" && bytes.Equal([]byte(l.Boot), sum[:])
}
