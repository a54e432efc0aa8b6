package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"ecs/internal/task"
)

// keyboard plays the agents' way in to programs: what an attempt took, by task.
type keyboard struct {
	mu      sync.Mutex
	got     map[string]string // by task/attempt
	taken   map[string]int64  // by task/attempt/writer
	ended   map[string]bool
	opened  int
	held    chan struct{} // not nil: the program does not read until it is closed
	breaks  int           // connections that break after their first piece
	noInput bool
	happens []string
}

type key struct {
	*keyboard
	at, writer string
	ctx        context.Context
	cancel     context.CancelFunc
	pieces     chan struct{}
	broken     chan error
	breaks     bool
	last       struct {
		sync.Mutex
		acks []func() (int64, bool)
	}
}

func (k *keyboard) Input(ctx context.Context, t *task.Task, writer string) (Input, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.got == nil {
		k.got, k.taken, k.ended = map[string]string{}, map[string]int64{}, map[string]bool{}
	}
	k.opened++
	i := &key{keyboard: k, at: fmt.Sprintf("%s/%d", t.ID, attemptOf(t)), writer: writer, pieces: make(chan struct{}, maxPieces), broken: make(chan error, 1)}
	i.ctx, i.cancel = context.WithCancel(ctx)
	if k.breaks > 0 {
		k.breaks--
		i.breaks = true
	}
	return i, nil
}

// Give queues a piece as an agent does: beyond maxPieces is a fault.
func (i *key) Give(offset int64, data []byte, end bool) error {
	data = append([]byte(nil), data...)
	i.last.Lock()
	defer i.last.Unlock()
	i.last.acks = append(i.last.acks, func() (int64, bool) {
		i.mu.Lock()
		defer i.mu.Unlock()
		w := i.at + "/" + i.writer
		if skip := i.taken[w] - offset; skip < int64(len(data)) {
			i.got[i.at] += string(data[max(0, skip):])
		}
		i.taken[w] = max(i.taken[w], offset+int64(len(data)))
		i.ended[i.at] = i.ended[i.at] || end
		return i.taken[w], i.ended[i.at]
	})
	select {
	case i.pieces <- struct{}{}:
		return nil
	default:
		return errors.New("too many pieces ahead")
	}
}

func (i *key) note(what string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.happens = append(i.happens, what)
	return nil
}

func (i *key) Resize(rows, cols uint16) error { return i.note(fmt.Sprintf("%dx%d", rows, cols)) }
func (i *key) Signal(s syscall.Signal) error  { return i.note(s.String()) }

func (i *key) Taken() (int64, bool, error) {
	select {
	case <-i.pieces:
	case <-i.ctx.Done():
		return 0, false, i.ctx.Err()
	}
	i.mu.Lock()
	held, noInput := i.held, i.noInput
	i.mu.Unlock()
	if noInput {
		return 0, false, fmt.Errorf("write: %w", ErrNoInput)
	}
	if held != nil {
		select {
		case <-held:
		case <-i.ctx.Done():
			return 0, false, i.ctx.Err()
		}
	}
	i.last.Lock()
	ack := i.last.acks[0]
	i.last.acks = i.last.acks[1:]
	i.last.Unlock()
	taken, ended := ack()
	if i.breaks { // after the program has it, before anybody knows
		return 0, false, errors.New("connection reset")
	}
	return taken, ended, nil
}

func (i *key) Close() { i.cancel() }

func (k *keyboard) text(at string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.got[at], k.ended[at]
}
