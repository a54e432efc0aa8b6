package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// OutputOptions say which part of a stream is wanted.
type OutputOptions struct {
	Offset int64
	// Follow keeps the stream open until the program has ended. It begins at
	// 0: Offset is for finished tasks.
	Follow bool
}

// Output gives the raw bytes of one stream, Stdout or Stderr. The caller closes
// it. An unexpected end, of a followed attempt that was lost for example, is an
// error of Read, never a clean end.
func (c *Client) Output(ctx context.Context, id, stream string, o OutputOptions) (*OutputReader, error) {
	q := call{method: http.MethodGet, path: taskPath(id) + "/output", query: url.Values{"stream": {stream}}}
	if o.Follow {
		q.query.Set("follow", "true")
	}
	if o.Offset > 0 {
		q.header = http.Header{"Range": {"bytes=" + strconv.FormatInt(o.Offset, 10) + "-"}}
	}
	resp, err := c.do(ctx, q)
	if errors.Is(err, &Problem{Code: CodeRange}) {
		// Everything there is has been read.
		return &OutputReader{resp: &http.Response{Body: http.NoBody}}, nil
	}
	if err != nil {
		return nil, err
	}
	if o.Offset > 0 && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, fmt.Errorf("output of %s: the task has not finished, so it cannot be read from an offset", id)
	}
	return &OutputReader{resp: resp}, nil
}

// Outputs gives the tar of the files that a finished task left, from an offset
// on. The caller closes it. CodeNotFinished: the task has not ended yet;
// CodeNoOutputs: it asked for none, or never ran; CodeOutputLost: they are gone.
// What a tar from somebody else's program may hold is for the caller to beware
// of: see cmd/ecsctl.
func (c *Client) Outputs(ctx context.Context, id string, offset int64) (*OutputReader, error) {
	q := call{method: http.MethodGet, path: taskPath(id) + "/outputs"}
	if offset > 0 {
		q.header = http.Header{"Range": {"bytes=" + strconv.FormatInt(offset, 10) + "-"}}
	}
	resp, err := c.do(ctx, q)
	if errors.Is(err, &Problem{Code: CodeRange}) {
		return &OutputReader{resp: &http.Response{Body: http.NoBody}}, nil
	}
	if err != nil {
		return nil, err
	}
	return &OutputReader{resp: resp}, nil
}

// OutputReader reads one stream.
type OutputReader struct{ resp *http.Response }

// Read gives the next bytes.
func (r *OutputReader) Read(p []byte) (int, error) { return r.resp.Body.Read(p) }

// Close ends the reading.
func (r *OutputReader) Close() error { return r.resp.Body.Close() }

// Truncated reports whether the program wrote more than was kept. For a
// followed stream it is known once Read has given io.EOF.
func (r *OutputReader) Truncated() bool {
	return r.resp.Header.Get(HeaderTruncated) != "" || r.resp.Trailer.Get(HeaderTruncated) != ""
}

// Events gives what happens to a task from its beginning, or from behind the
// event `after`, until it has finished: changes of its state and its output as
// it appears. A broken connection is taken up again where it broke, through any
// endpoint. The sequence ends after the state event of the finished task, or
// with an error.
func (c *Client) Events(ctx context.Context, id, after string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for broken := 0; ; broken++ {
			before := after
			done, err := c.eventsOnce(ctx, id, &after, yield)
			if done {
				return
			}
			if after != before {
				broken = 0
			}
			if err != nil && broken >= maxBroken {
				yield(Event{}, err)
				return
			}
			timer := time.NewTimer(backoff(broken))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				yield(Event{}, ctx.Err())
				return
			}
		}
	}
}

// maxBroken is how often in a row an event stream may break without bringing
// anything.
const maxBroken = 5

// eventsOnce reads one connection's events. It is done when the task has
// finished, the reader has had enough or repeating cannot help; an error in
// that case has been yielded.
func (c *Client) eventsOnce(ctx context.Context, id string, after *string, yield func(Event, error) bool) (done bool, err error) {
	q := call{method: http.MethodGet, path: taskPath(id) + "/events", header: http.Header{"Accept": {"text/event-stream"}}}
	if *after != "" {
		q.header.Set(HeaderLastEventID, *after)
	}
	resp, err := c.do(ctx, q)
	if err != nil {
		yield(Event{}, err) // do has been patient already
		return true, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return true, nil
	}
	events := newEventReader(resp.Body)
	for {
		e, err := events.next()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the finished state comes last
		}
		if err != nil {
			return false, fmt.Errorf("events of %s: %w", id, err)
		}
		*after = e.ID
		if !yield(e, nil) {
			return true, nil
		}
		if e.Type == EventState && e.Task.Finished() {
			return true, nil
		}
	}
}
