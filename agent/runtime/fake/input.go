package fake

import (
	"context"
	"io"
	"sync"

	"ecs/agent/runtime"
	"ecs/internal/task"
)

// input is a program's standard input and the size of its terminal.
type input struct {
	open   bool          // for whoever attaches
	pieces chan []byte   // without room: a piece is taken when the program reads it
	ended  chan struct{} // closed at the end of the input
	once   sync.Once

	mu         sync.Mutex
	inline     []byte // what was there from the beginning
	rows, cols uint16
}

func newInput(s task.Spec) *input {
	i := &input{open: s.OpenStdin, pieces: make(chan []byte), ended: make(chan struct{}), inline: s.Stdin, rows: 24, cols: 80}
	if !i.open {
		i.end()
	}
	return i
}

func (i *input) end() { i.once.Do(func() { close(i.ended) }) }

// put gives the program p, and waits until it reads that or is over.
func (i *input) put(ctx context.Context, over <-chan struct{}, p []byte, eof bool) error {
	select {
	case <-i.ended:
		return runtime.ErrNoInput
	default:
	}
	if len(p) > 0 {
		select {
		case i.pieces <- p:
		case <-i.ended:
			return runtime.ErrNoInput
		case <-over:
			return runtime.ErrNoInput
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if eof {
		i.end()
	}
	return nil
}

// next is what the program reads: the next piece, or io.EOF.
func (i *input) next(ctx context.Context) ([]byte, error) {
	i.mu.Lock()
	inline := i.inline
	i.inline = nil
	i.mu.Unlock()
	if len(inline) > 0 {
		return inline, nil
	}
	select {
	case p := <-i.pieces:
		return p, nil
	case <-i.ended:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (i *input) resize(rows, cols uint16) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rows, i.cols = rows, cols
}

func (i *input) size() (rows, cols uint16) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.rows, i.cols
}
