package docker

import (
	"sync"

	"ecs/internal/task"
)

// parkedPrefix begins the name that stands for a task's in the token of what is
// parked.
const parkedPrefix = "parked-"

// isParking reports whether a token stands for no attempt but for something
// parked. It has attempt 0, which no task has.
func isParking(t task.Token) bool { return t.Attempt == 0 }

// parking knows what is parked, by this process and since when it was bound.
type parking struct {
	mu     sync.Mutex
	owners map[task.Token]task.Token // zero while it is parked
}

// add notes what is about to be parked.
func (p *parking) add(parked task.Token) { p.bind(parked, task.Token{}) }

// bind notes whose it is.
func (p *parking) bind(parked, owner task.Token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owners == nil {
		p.owners = map[task.Token]task.Token{}
	}
	p.owners[parked] = owner
}

// owner gives the attempt that has it, or none while it is parked.
func (p *parking) owner(parked task.Token) (owner task.Token, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	owner, known = p.owners[parked]
	return owner, known
}

func (p *parking) drop(parked task.Token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owners, parked)
}
