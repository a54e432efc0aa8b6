package runtime

import (
	"context"
	"errors"
	"time"

	"ecs/internal/task"
)

// Parking is what Park needs.
type Parking struct {
	// Shape is what the container is fixed to; its image is an Image's ID.
	Shape task.Shape
	// Deadline gives the end of the lease under which it is parked, as Order's.
	Deadline func() time.Duration
}

// Parked is a started container without an attempt. No program has ever run in
// it. It ends by itself when its lease is over, as an attempt does, and needs no
// agent for that.
type Parked interface {
	// Bind makes it the attempt's, once and for ever; whatever comes of that, it
	// is never another's. What follows on the Container is Start, Kill and Remove
	// as after Create, but that Start answers ErrSpent when the container has
	// ended before it could be told to begin. The order's spec must have the
	// Shape.
	//
	// A *Failure, as Create's, is about the order: the container is as it was. After
	// any other error it is to be removed; that is ErrSpent where it has ended or
	// was bound before.
	Bind(ctx context.Context, o Order) (Container, error)
	// Gone is closed when it can't be bound any more: it has ended, was bound or
	// was removed.
	Gone() <-chan struct{}
	// Renew moves the end of its lease, as Container.Renew.
	Renew(end time.Duration)
	// Remove removes it, as Container.Remove. It does nothing once it is bound.
	Remove(ctx context.Context) error
}

// ErrSpent: the parked container is of no use (any more). Of what it was to run
// nothing ever ran in it.
var ErrSpent = errors.New("the parked container is gone")
