// Package fence ends what must end, from outside: it holds the cgroup and the
// deadline of every attempt, and kills all processes of the cgroup at the
// deadline, again until it is empty. It knows neither agent nor engine, and
// works while both are down.
//
// The server is a process of its own (ecs-fence), so that it runs on when the
// agent dies; its entries are files, so that it may die as well. A Client is the
// agent's side.
//
// They speak JSON, one value a line, over a unix socket that only root may use.
// Deadlines are absolute on CLOCK_BOOTTIME: neither a delay on the way nor a
// sleep of the machine moves them.
package fence

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"ecs/internal/cgroup"
)

// Entry is one attempt to be ended.
type Entry struct {
	ID string `json:"id"`
	// Cgroup is the directory under /sys/fs/cgroup with the processes to kill.
	Cgroup string `json:"cgroup"`
	// Deadline is when, since boot (CLOCK_BOOTTIME).
	Deadline time.Duration `json:"deadline"`
}

// ErrEnded: the deadline of an entry has passed, or it was to be killed. Nothing
// brings it back.
var ErrEnded = errors.New("the fence has ended it")

// ErrNone: there is no outer fence.
var ErrNone = errors.New("there is no outer fence")

// Bounds of what a client may ask for.
const (
	maxEntries    = 4096
	maxID         = 128
	maxPath       = 1024
	maxLine       = 64 << 10
	maxAnswer     = 8 << 20 // a list of every entry
	renewalsALine = 256
)

// The things a client may ask for.
const (
	opAdd    = "add"
	opRenew  = "renew" // also a sign of life
	opRemove = "remove"
	opKill   = "kill"
	opList   = "list"
)

type request struct {
	Seq uint64 `json:"seq"`
	Op  string `json:"op"`
	Entry
	Renewals []renewal `json:"renewals,omitempty"`
}

type renewal struct {
	ID       string        `json:"id"`
	Deadline time.Duration `json:"deadline"`
}

// answer is given to every request, not always in their order.
type answer struct {
	Seq   uint64 `json:"seq"`
	Error string `json:"error,omitempty"`
	Ended bool   `json:"ended,omitempty"` // the error is ErrEnded
	// Lost are renewed entries that the server does not hold, or has ended.
	Lost []string `json:"lost,omitempty"`
	// Trouble is what keeps the fence from doing its work.
	Trouble string  `json:"trouble,omitempty"`
	Entries []Entry `json:"entries,omitempty"`
}

// err is the answer as its caller is told.
func (a answer) err() error {
	switch {
	case a.Ended && a.Error != "" && a.Error != ErrEnded.Error():
		return fmt.Errorf("%w (%s)", ErrEnded, strings.TrimSuffix(a.Error, ": "+ErrEnded.Error()))
	case a.Ended:
		return ErrEnded
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

// check refuses what must never be killed: anything but a cgroup below the top
// of a hierarchy.
func (e Entry) check() error {
	rest, under := strings.CutPrefix(e.Cgroup, cgroup.Root+"/")
	switch {
	case e.ID == "" || len(e.ID) > maxID:
		return fmt.Errorf("an id of %d bytes: want 1 to %d", len(e.ID), maxID)
	case e.Deadline <= 0:
		return fmt.Errorf("deadline %s: want one after the machine's start", e.Deadline)
	case len(e.Cgroup) > maxPath || !under || filepath.Clean(e.Cgroup) != e.Cgroup || !strings.Contains(rest, "/"):
		return fmt.Errorf("cgroup %.100q: want a directory below a hierarchy in %s", e.Cgroup, cgroup.Root)
	}
	return nil
}
