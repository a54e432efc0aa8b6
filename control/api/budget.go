package api

import "sync"

// budget bounds the bytes that answers hold while they are assembled.
type budget struct {
	total int64
	mu    struct {
		sync.Mutex
		used int64
	}
}

func newBudget(total int64) *budget { return &budget{total: total} }

// take reserves n bytes, or says at once that they are not there.
func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.total-b.mu.used {
		return false
	}
	b.mu.used += n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used -= n
}
