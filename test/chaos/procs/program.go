package procs

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"ecs/internal/daemon"
	"ecs/internal/task"
)

// Late is the last word of the command of a program that ends as late as one may:
// the outer fence strikes a second ahead of the lease's end and may take two. What
// the leader waits beyond the lease is for that.
const Late = "late"

// endsLate is how long after its lease such a program ends: just before it may.
const endsLate = 950 * time.Millisecond

// beatEvery is how often a program tells that it lives, and looks at its lease.
const beatEvery = 50 * time.Millisecond

// Run is the program of the attempt in dir: it tells of its life until its time
// is over, or its run limit, or its lease nearly.
func Run(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	var o Order
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	length, code, size, late, err := Parse(o.Command)
	if err != nil {
		return err
	}
	lease, err := os.Open(filepath.Join(dir, "lease"))
	if err != nil {
		return err
	}
	witness, err := os.OpenFile(filepath.Join(o.Witness, witnessName(o)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	ahead := task.FenceAhead
	if late {
		ahead = -endsLate
	}
	began, wall := daemon.Boottime(), time.Now()
	end := Exit{Code: code, Began: wall}
	for {
		now := daemon.Boottime()
		var deadline [8]byte
		if _, err := lease.ReadAt(deadline[:], 0); err != nil {
			return fmt.Errorf("read the lease: %w", err)
		}
		// First its lease, then a sign of life: nothing of it is later than that.
		if now >= time.Duration(binary.BigEndian.Uint64(deadline[:]))-ahead {
			end.Lapsed, end.Code = true, sigkilled
			break
		}
		if _, err := fmt.Fprintln(witness, int64(now)); err != nil {
			return err
		}
		if o.Limit > 0 && now-began >= o.Limit {
			end.RunLimit, end.Code = true, sigkilled
			break
		}
		if now-began >= length {
			break
		}
		time.Sleep(min(beatEvery, length-(now-began)))
	}
	end.Run = daemon.Boottime() - began
	if err := os.WriteFile(filepath.Join(dir, "out"), Output(size), 0o600); err != nil {
		return err
	}
	said, err := json.Marshal(end)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "exit.tmp")
	return errors.Join(os.WriteFile(tmp, said, 0o600), os.Rename(tmp, filepath.Join(dir, "exit")))
}

// witnessName is the file that this process tells of its life in. It is no other
// process's, not even of the same attempt: one that was run twice is to be seen.
func witnessName(o Order) string {
	return fmt.Sprintf("%s.%d.%s.%d-%s", o.Task, o.Attempt, o.Node, os.Getpid(), startOf(os.Getpid()))
}

// Parse reads a program's command: beat FOR CODE BYTES, and Late where it is one
// that only the outer fence ends.
func Parse(command []string) (length time.Duration, code, size int, late bool, err error) {
	if len(command) != 4 && (len(command) != 5 || command[4] != Late) {
		return 0, 0, 0, false, fmt.Errorf("a program of %v: want beat FOR CODE BYTES [%s]", command, Late)
	}
	length, err = time.ParseDuration(command[1])
	code, err2 := strconv.Atoi(command[2])
	size, err3 := strconv.Atoi(command[3])
	return length, code, size, len(command) == 5, errors.Join(err, err2, err3)
}

// Output is what a program writes.
func Output(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}
