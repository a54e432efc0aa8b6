package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"ecs/agent/journal"
	"ecs/agent/runtime"
	"ecs/internal/task"
)

// bootIDPath tells one boot of the machine from the next.
const bootIDPath = "/proc/sys/kernel/random/boot_id"

// adopt takes up the attempt's container and output where an earlier process
// left them. It goes on trying until it has them or knows that there is nothing,
// also when the attempt is stopped or abandoned meanwhile: what may run can't be
// ended otherwise.
func (r *runner) adopt() error {
	stdout, stderr := r.reopen()
	r.astray = true
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		container, err := r.adoptOnce(stdout, stderr)
		switch {
		case err == nil:
			r.container, r.astray = container, false
			r.goesOn()
			r.log.Info("attempt adopted", "stdout", stdout, "stderr", stderr)
			return nil
		case errors.Is(err, runtime.ErrGone):
			r.astray, r.litter = false, true
			return fmt.Errorf("take the attempt up after a restart of the agent: %w", err)
		case r.base.Err() != nil:
			return context.Cause(r.base)
		}
		r.log.Warn("attempt not adopted", "err", err)
		sleep(r.base, pause)
	}
}

func (r *runner) adoptOnce(stdout, stderr int64) (runtime.Container, error) {
	ctx, cancel := context.WithTimeout(r.base, startTimeout)
	defer cancel()
	return r.engine.Adopt(ctx, runtime.Adoption{Token: r.token, Spec: r.spec, Deadline: r.deadline,
		Output: r.sink(), Stdout: stdout, Stderr: stderr})
}

// reopen takes up the output, and says how much of it has been dealt with.
func (r *runner) reopen() (stdout, stderr int64) {
	var err error
	r.entry, stdout, stderr, err = r.spool.Reopen(r.token, r.left.Output, r.spec.MaxOutput)
	if err != nil {
		r.log.Error("output before the restart is lost", "err", err)
		r.entry = r.spool.Create(r.token, r.spec.MaxOutput)
		return 0, 0
	}
	return stdout, stderr
}

func (r *runner) sink() runtime.Sink {
	return runtime.Sink{Stdout: r.entry.Stdout(), Stderr: r.entry.Stderr()}
}

func (r *runner) deadline() time.Duration { return r.lease.end(r.token) }

// record is the attempt as the journal has it.
func (r *runner) record() journal.Record {
	return journal.Record{Token: r.token, Spec: r.spec, CID: r.cid, Owner: r.owner, Begun: r.begun,
		Digest: r.digest, Output: r.entry.Name(), Bill: r.bill}
}

// writeDown tells the journal how the attempt stands: that it may begin, what it
// is being ended as, or with a result how it ended.
func (r *runner) writeDown(change func(*journal.Record)) error {
	record := r.record()
	if change != nil {
		change(&record)
	}
	return r.journal.Put(record)
}

// writeStop writes down why the program is ended, before it is: its exit alone
// would not tell a later process.
func (r *runner) writeStop(why error) {
	stop := new(stopped)
	switch {
	case errors.As(why, &stop):
	case errors.Is(why, errRunTime):
		stop = &stopped{outcome: task.TimedOut, reason: errRunTime.Error()}
	default:
		return // an abandonment needs no reason
	}
	if r.begun.IsZero() {
		return
	}
	err := r.writeDown(func(j *journal.Record) { j.Stop = &journal.Stop{Outcome: stop.outcome, Reason: stop.reason} })
	if err != nil {
		r.log.Warn("why the program is ended is not written down", "err", err)
	}
}

// writeEnd writes the result down, to be reported by a later process if this one
// does not come to it.
func (r *runner) writeEnd(result *task.Result) {
	if r.begun.IsZero() {
		return
	}
	err := r.writeDown(func(j *journal.Record) { j.Result, j.StartedAt, j.EndedAt = result, r.startedAt, r.endedAt })
	if err != nil {
		r.log.Warn("the result is not written down", "err", err)
	}
}

// forget lets go of what there is of an abandoned attempt that has ended.
func (r *runner) forget() {
	r.spool.Release(r.token)
	if r.begun.IsZero() {
		return
	}
	r.lease.save()
	r.journal.Remove(r.token)
}

// newAdopted makes the runner of an attempt that an earlier process began.
func newAdopted(k *kit, base context.Context, left journal.Record) *runner {
	r := newRunner(k, base, order{token: left.Token, spec: left.Spec, cid: left.CID, owner: left.Owner})
	r.left, r.begun, r.digest, r.bill = &left, left.Begun, left.Digest, left.Bill
	r.startedAt = left.Begun
	if left.Stop != nil {
		r.stop(&stopped{outcome: left.Stop.Outcome, reason: left.Stop.Reason})
	}
	return r
}

// recover reads what an earlier process left, once.
func (a *Agent) recover() error {
	if a.recovered {
		return nil
	}
	if a.lease.boot = a.cfg.BootID; a.lease.boot == "" && a.cfg.JournalDir != "" {
		boot, err := os.ReadFile(bootIDPath)
		if err != nil {
			return fmt.Errorf("which boot of the machine this is: %w", err)
		}
		a.lease.boot = string(boot)
	}
	left, err := a.journal.Load()
	if err != nil {
		return err
	}
	a.recovered = true
	if left.Refused > 0 {
		// What can't be named must not be taken for what never began.
		left.Lease.Epoch = 0
	}
	a.lease.resume(left.Lease)
	if !left.Lease.Of(a.lease.boot) {
		a.cfg.Log.Debug("nothing to take up of an earlier boot", "attempts", len(left.Records))
		a.unwanted = left.Records
		return nil
	}
	for _, record := range left.Records {
		taken, err := a.supervisor.adopt(record)
		if err != nil {
			return err
		}
		if !taken {
			a.unwanted = append(a.unwanted, record)
		}
	}
	epoch, age := a.lease.state()
	a.cfg.Log.Info("earlier run of the agent", "attempts", len(left.Records), "unwanted", len(a.unwanted), "epoch", epoch, "contact", age)
	return nil
}

// discard forgets what nobody wants of an earlier run, once nothing of it is
// left on the engine.
func (a *Agent) discard() error {
	a.lease.save()
	for _, record := range a.unwanted {
		a.journal.Remove(record.Token)
	}
	a.unwanted = nil
	if err := a.cfg.Spool.Sweep(); err != nil {
		return fmt.Errorf("remove output of an earlier run: %w", err)
	}
	return nil
}

// adopt takes up an attempt of an earlier process. It reports false when its
// lease is over.
func (s *supervisor) adopt(left journal.Record) (taken bool, err error) {
	err = s.do(func() {
		r := newAdopted(s.kit, s.base, left)
		m := &member{runner: r}
		if left.Result != nil {
			s.restore(m, left)
			taken = true
			return
		}
		if taken = s.lease.adopt(left.Token, left.Spec.Lease, r.abandon); !taken {
			r.abandon(nil)
			r.log.Warn("attempt of an earlier run is over: its lease has lapsed")
			return
		}
		s.spool.Keep(left.Output) // the runner may come to reopen it only after discard
		s.launch(m)
	})
	return taken, err
}

// restore reports again what an earlier process knew of the end of an attempt.
func (s *supervisor) restore(m *member, left journal.Record) {
	m.abandon(nil) // nothing of it runs
	m.ended, m.reported, m.done = true, true, true
	result := *left.Result
	if result.OutputAddr != "" {
		result.OutputAddr, m.spooled = s.outputAddr, true
	}
	s.members[m.token] = m
	s.reporter.finished(m.token, left.StartedAt, &result, left.Bill, left.EndedAt)
	m.log.Info("result of an earlier run is reported", "outcome", result.Outcome)
}
