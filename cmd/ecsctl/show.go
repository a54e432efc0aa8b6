package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"ecs/proto/api"
)

// sheet prints names and values, one pair a line; empty values are left out.
type sheet struct{ w *tabwriter.Writer }

func newSheet(w io.Writer) sheet { return sheet{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

func (s sheet) line(name, value string) {
	if value != "" {
		fmt.Fprintf(s.w, "%s:\t%s\n", name, cell(value))
	}
}

// showTask prints everything about a task that a person may want to know.
func showTask(w io.Writer, t *api.Task, now time.Time) error {
	s := newSheet(w)
	s.line("Task", t.ID)
	s.line("State", t.State)
	s.line("Stopping as", t.Stopping)
	s.line("Outcome", t.Outcome)
	if t.ExitCode != nil {
		s.line("Exit code", strconv.Itoa(*t.ExitCode))
	}
	s.line("Signal", t.Signal)
	s.line("Reason", t.Reason)
	s.line("Waiting because", t.WaitingBecause)
	if t.QueuePosition > 0 {
		s.line("Queue position", strconv.Itoa(t.QueuePosition))
	}
	s.line("Image", t.Spec.Image)
	s.line("Image digest", t.ImageDigest)
	s.line("Command", words(t.Spec.Command))
	s.line("Node", t.Node)
	s.line("Started ahead", t.Warm)
	s.line("Zone", t.Zone)
	s.line("Submitted", when(t.SubmittedAt, now))
	s.line("Finished", when(t.FinishedAt, now))
	s.line("Idempotency key", t.IdempotencyKey)
	s.line("Correlation id", t.CID)
	showSpec(s, t.Spec)
	showStream(s, "Stdout", t.Stdout)
	showStream(s, "Stderr", t.Stderr)
	showOutputs(s, t)
	if err := s.w.Flush(); err != nil {
		return err
	}
	if len(t.Attempts) > 0 {
		fmt.Fprintln(w, "\nAttempts:")
		if err := attemptTable(t.Attempts, now).print(w); err != nil {
			return err
		}
	}
	return showBill(w, t)
}

func showSpec(s sheet, spec api.Spec) {
	r := spec.Resources
	s.line("Resources", fmt.Sprintf("%s CPU (at most %s), %s memory, %d pids", r.CPU, r.CPULimit, r.Memory, r.Pids))
	s.line("Network", spec.Network)
	s.line("Capabilities", strings.Join(spec.CapAdd, ", "))
	s.line("User", spec.User)
	s.line("Working directory", spec.Workdir)
	s.line("Zones", strings.Join(spec.Placement.Zones, ", "))
	timeouts := fmt.Sprintf("queue %s, pull %s, run %s", spec.Timeouts.Queue, spec.Timeouts.Pull, spec.Timeouts.Run)
	if spec.Timeouts.Total > 0 {
		timeouts += ", total " + spec.Timeouts.Total.String()
	}
	s.line("Time limits", timeouts)
	s.line("Delivery", spec.Delivery)
	s.line("Retries", retriesText(spec.Retry))
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(spec.Labels)) {
		labels = append(labels, name+"="+spec.Labels[name])
	}
	s.line("Labels", strings.Join(labels, ", "))
}

// retriesText says how often what is repeated.
func retriesText(r api.Retry) string {
	text := "none of an attempt that is lost"
	if r.Infrastructure != nil && *r.Infrastructure > 0 {
		text = fmt.Sprintf("%d of an attempt that is lost", *r.Infrastructure)
	}
	if r.Program == 0 {
		return text
	}
	text += fmt.Sprintf(", %d of the program", r.Program)
	if len(r.OnExitCodes) > 0 {
		text += " on exit codes " + strings.Trim(fmt.Sprint(r.OnExitCodes), "[]")
	}
	return text + ", first after " + r.Backoff.String()
}

func showStream(s sheet, name string, st *api.Stream) {
	if st == nil {
		return
	}
	text := bytesText(st.Bytes)
	if st.Truncated {
		text += ", the first " + bytesText(st.Kept) + " kept"
	}
	s.line(name, text)
}

// showOutputs tells what became of the files that were to be kept.
func showOutputs(s sheet, t *api.Task) {
	s.line("Outputs", strings.Join(t.Spec.Outputs, ", "))
	o := t.Outputs
	switch {
	case o == nil:
		return
	case o.Lost != "":
		s.line("Kept of them", "nothing: "+o.Lost)
		return
	}
	text := fmt.Sprintf("%d entries in a tar of %s", o.Entries, bytesText(o.Bytes))
	if o.Truncated {
		text += ", and there was more"
	}
	s.line("Kept of them", text)
	s.line("Missing of them", strings.Join(o.Missing, ", "))
}

func attemptTable(attempts []api.Attempt, now time.Time) *table {
	t := &table{header: []string{"NUMBER", "NODE", "ZONE", "OUTCOME", "EXIT", "PLACED", "STARTED", "ENDED", "REASON"}}
	for _, a := range attempts {
		outcome := a.Outcome
		if outcome == "" {
			outcome = "live"
		}
		code := ""
		if a.ExitCode != nil {
			code = strconv.Itoa(*a.ExitCode)
		}
		t.add(strconv.Itoa(a.Number), a.Node, a.Zone, outcome, code, age(a.Placed, now), age(a.Started, now), age(a.Ended, now), a.Reason)
	}
	return t
}

// showBill prints where the task's time went, in the order it went.
func showBill(w io.Writer, t *api.Task) error {
	if t.Times == nil {
		return nil
	}
	b := t.Times
	bill := &table{header: []string{"MILLISECONDS", "PART", "WHAT"}}
	for _, part := range []struct {
		ms         *float64
		name, what string
	}{
		{b.Accepted, "accepted", "request read until proposed"},
		{b.Committed, "committed", "until that was on record"},
		{b.Queued, "queued", "until a node was chosen"},
		{b.Placed, "placed", "until that was on record"},
		{b.Assigned, "assigned", "until it was sent to the node"},
		{b.Image, "image", "permission, resolution and pull"},
		{b.Create, "create", "container made"},
		{b.Start, "start", "until the program ran"},
		{b.Run, "run", "the program itself"},
		{b.Output, "output", "its end until its last byte and file were kept"},
		{b.Reported, "reported", "until the result was sent"},
		{b.Recorded, "recorded", "until that was on record"},
		{b.Transfer, "transfer", "between clocks"},
		{b.Answered, "answered", "until the answer was written"},
		{t.OverheadMS, "overhead", "everything but the run"},
		{b.Total, "total", "from the request to the answer"},
	} {
		if part.ms != nil {
			bill.add(fmt.Sprintf("%12s", strconv.FormatFloat(*part.ms, 'f', 2, 64)), part.name, part.what)
		}
	}
	if len(bill.rows) == 0 {
		return nil
	}
	fmt.Fprintln(w, "\nWhere the time went:")
	return bill.print(w)
}

// words shows arguments so that each can be told from the next.
func words(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n'\"\\") {
			quoted[i] = strconv.Quote(arg)
		}
	}
	return strings.Join(quoted, " ")
}

func when(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000 MST") + " (" + age(t, now) + " ago)"
}
