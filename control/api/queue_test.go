package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/proto"

	"ecs/control/state"
	"ecs/internal/access"
	ecsv1 "ecs/proto/ecs/v1"
)

// line is a queue whose turns end when the test says so.
type line struct {
	*queue
	t      *testing.T
	guilty map[string]bool
	mu     sync.Mutex
	order  []string // whose turn it was, and what became of the others
	ended  sync.WaitGroup
}

func inLine(t *testing.T, test func(t *testing.T, l *line)) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{t: t, guilty: map[string]bool{}}
		l.queue = newQueue(func(from string) bool { return l.guilty[from] })
		l.most = 3
		test(t, l)
		l.ended.Wait()
		if l.waiting != 0 || l.busy != 0 || len(l.lanes[0].by)+len(l.lanes[1].by) != 0 {
			t.Errorf("%d wait and %d are at it after all have gone", l.waiting, l.busy)
		}
	})
}

// come has one wait for its turn, and returns once it does or has it.
func (l *line) come(ctx context.Context, from, key string) {
	l.ended.Go(func() {
		v, err := l.enter(ctx, from, key)
		l.mu.Lock()
		defer l.mu.Unlock()
		switch {
		case err != nil:
			l.order = append(l.order, fmt.Sprintf("%s: %v", from, err))
		case v == again:
			l.order = append(l.order, from+" again")
		default:
			l.order = append(l.order, from)
		}
	})
	synctest.Wait()
}

// turns ends so many turns, one after the other, and gives who came.
func (l *line) turns(n int) []string {
	for range n {
		l.leave()
		synctest.Wait()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.order
}

func TestAddressesTakeTurnsAndThoseThatWereWrongComeLast(t *testing.T) {
	inLine(t, func(t *testing.T, l *line) {
		l.wrong() // so that one is checked at a time
		l.guilty["bad"] = true
		for _, from := range []string{"first", "bad", "many", "many", "many", "turned", "one", "bad"} {
			l.come(t.Context(), from, "k")
		}
		l.guilty["turned"] = true
		want := []string{"first", "many", "one", "many", "many", "bad", "turned", "bad"}
		if got := l.turns(8); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestThoseThatWereWrongDoNotWaitForLong(t *testing.T) {
	inLine(t, func(t *testing.T, l *line) {
		l.wrong()
		l.guilty["bad"] = true
		l.come(t.Context(), "first", "k")
		l.come(t.Context(), "bad", "k")
		l.come(t.Context(), "bad", "k")
		time.Sleep(guiltyWait)
		l.come(t.Context(), "good", "k")
		want := []string{"first", "good", "bad: " + errFull.Error(), "bad: " + errFull.Error()}
		if got := l.turns(2); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestSeveralAreCheckedAtOnceUntilOneIsWrong(t *testing.T) {
	inLine(t, func(t *testing.T, l *line) {
		for i := range 10 {
			l.come(t.Context(), fmt.Sprint(i), "k")
		}
		if len(l.order) != 3 {
			t.Fatalf("got %d at once, want 3", len(l.order))
		}
		began := time.Now()
		if l.rest(time.Second); time.Since(began) > 0 {
			t.Error("a check rests although nobody guesses")
		}
		l.wrong()
		if l.rest(restMost / 2); time.Since(began) != restMost/2 {
			t.Errorf("a check rests %s after %s of work", time.Since(began), restMost/2)
		}
		if got := l.turns(2); len(got) != 3 {
			t.Errorf("got %d, want none to begin while one is at it", len(got))
		}
		if got := l.turns(1); len(got) != 4 {
			t.Errorf("got %d, want one at a time", len(got))
		}
		time.Sleep(calmAfter)
		if got := l.turns(1); len(got) != 7 {
			t.Errorf("got %d, want 3 at once again", len(got))
		}
		l.turns(6)
	})
}

func TestWhoseSecretIsKnownByNowWaitsNoMore(t *testing.T) {
	inLine(t, func(t *testing.T, l *line) {
		l.wrong()
		l.come(t.Context(), "a", "k")
		for range 3 {
			l.come(t.Context(), "a", "k")
		}
		l.come(t.Context(), "b", "other")
		l.right("k")
		synctest.Wait()
		if want := []string{"a", "a again", "a again", "a again"}; !slices.Equal(l.order, want) {
			t.Errorf("got %v, want %v", l.order, want)
		}
		l.turns(2)
	})
}

func TestAFullQueueRefusesThoseThatWereWrongAndWhoHasMost(t *testing.T) {
	inLine(t, func(t *testing.T, l *line) {
		var ofMany atomic.Int32
		l.wrong()
		l.guilty["bad"] = true
		ctx, cancel := context.WithCancel(t.Context())
		l.come(ctx, "first", "k")
		l.come(ctx, "bad", "k")
		for range maxWaiting - 1 {
			l.ended.Go(func() {
				switch _, err := l.enter(ctx, "many", "k"); {
				case errors.Is(err, errFull):
					ofMany.Add(1)
				case !errors.Is(err, context.Canceled):
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		l.come(ctx, "bad", "k")  // refused
		l.come(ctx, "good", "k") // takes the place of the one that waits
		l.come(ctx, "late", "k") // takes one of many's
		want := []string{"first", "bad: " + errFull.Error(), "bad: " + errFull.Error()}
		if n := ofMany.Load(); !slices.Equal(l.order, want) || n != 1 {
			t.Errorf("got %v, want %v; %d of many had to go, want 1", l.order, want, n)
		}
		l.come(ctx, "many", "k") // who has most has no place of another's
		if last := l.order[len(l.order)-1]; last != "many: "+errFull.Error() {
			t.Errorf("got %s", last)
		}
		cancel()
		synctest.Wait()
		l.leave()
	})
}

// A turn that comes in the moment in which nobody waits for it any more is another's.
func TestATurnIsNotLostWithWhoLeaves(t *testing.T) {
	inLine(t, func(t *testing.T, l *line) {
		l.wrong()
		l.come(t.Context(), "first", "k")
		w := &waiter{key: "k", since: time.Now(), verdict: make(chan verdict, 1)}
		if err := l.join(w, "gone"); err != nil {
			t.Fatal(err)
		}
		l.come(t.Context(), "next", "k")
		l.leave()
		l.abandon(w, "gone")
		synctest.Wait()
		if want := []string{"first", "next"}; !slices.Equal(l.order, want) {
			t.Errorf("got %v, want %v", l.order, want)
		}
		l.leave()
	})
}

// Strangers from many addresses are each wrong seldom: the token that it costs is
// back long before their turn comes again.
func TestWhoWasWrongComesLastForMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file, err := NewHtpasswd(htpasswdFile(t, "key:"+string(text)))
		if err != nil {
			t.Fatal(err)
		}
		ring := NewKeyring(file, access.Run, nil)
		try := func(secret string) error {
			_, err := ring.Authenticate(t.Context(), Attempt{"key", secret, "far"})
			return err
		}
		if err := try("wrong"); !errors.Is(err, ErrWrongSecret) {
			t.Fatal(err)
		}
		time.Sleep(guiltyFor - time.Second)
		if !ring.queue.guilty("far") || ring.queue.guilty("near") {
			t.Error("who was wrong some minutes ago is taken for others")
		}
		time.Sleep(time.Second)
		if ring.queue.guilty("far") {
			t.Error("it is held against it for ever")
		}
		_ = try("wrong again")
		if err := try("right"); err != nil || ring.queue.guilty("far") {
			t.Errorf("whose secret is right: %v, or it is still held against it", err)
		}
	})
}

// A node that has just started has every key to check once, and strangers do not
// wait: everybody with a key gets in.
func TestEveryKeyIsCheckedAgainAfterAStart(t *testing.T) {
	const keys = 300
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	entry := &ecsv1.Entry{}
	for i := range keys {
		entry.Commands = append(entry.Commands, state.ToWire(state.PutKey{Key: access.Key{ID: fmt.Sprint("key", i), Role: access.Run, Hash: string(hash)}}, time.Now()))
	}
	text, err := proto.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	store := state.NewStore(state.Limits{})
	if _, err := store.Apply(1, text); err != nil {
		t.Fatal(err)
	}
	ring := NewKeyring(nil, access.Run, still{store})
	ctx, cancel := context.WithTimeout(t.Context(), authWithin)
	defer cancel()
	var strangers, known sync.WaitGroup
	guessing, stop := context.WithCancel(ctx)
	for i := range 4 * keys {
		strangers.Go(func() {
			for guessing.Err() == nil {
				a := Attempt{fmt.Sprint("key", i%keys), "wrong", fmt.Sprint("stranger", i/8)}
				if _, err := ring.Authenticate(guessing, a); err == nil {
					t.Error("a wrong secret is right")
				} else if e := new(Excess); errors.As(err, &e) {
					return
				}
			}
		})
	}
	for i := range keys {
		for range 2 {
			known.Go(func() {
				if _, err := ring.Authenticate(ctx, Attempt{fmt.Sprint("key", i), "right", fmt.Sprint("known", i)}); err != nil {
					t.Errorf("key %d: %v", i, err)
				}
			})
		}
	}
	known.Wait()
	stop()
	strangers.Wait()
}
