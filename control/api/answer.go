package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"ecs/internal/task"
	"ecs/proto/api"
)

// fetchWithin bounds how long an answer waits for output kept on another node.
const fetchWithin = 30 * time.Second

// withHeads adds what the record itself holds of the output.
func withHeads(v api.Task, t *task.Task) api.Task {
	if t.Result != nil && v.Stdout != nil {
		v.Stdout.Encoding, v.Stdout.Data = encode(beginning(&t.Result.Stdout, api.MaxInline))
		v.Stderr.Encoding, v.Stderr.Data = encode(beginning(&t.Result.Stderr, api.MaxInline))
	}
	return v
}

// answer gives a finished task with up to maxInline bytes of each stream and
// its bill. own is nil for a caller who came later.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, t *task.Task, maxInline int64, own *answering) error {
	if own != nil {
		own.seen = h.cfg.Now()
	}
	maxInline = min(maxInline, h.budget.total/2)
	need := missing(&t.Result.Stdout, maxInline) + missing(&t.Result.Stderr, maxInline)
	if !h.budget.take(need) {
		return refusal(api.CodeBusy, "too many answers with output are being assembled; take the output from /v2/tasks/"+string(t.ID)+"/output")
	}
	defer h.budget.give(need)

	v := render(t)
	stdout, stderr, err := h.inline(r.Context(), t, maxInline, &v)
	if err != nil {
		return err
	}
	if own != nil {
		own.now = h.cfg.Now()
	}
	times, overhead := bill(t, own)
	if own != nil {
		h.stats.answered(t.Result.Outcome, overhead)
	}
	v.Times, v.OverheadMS = &times, ms(overhead)
	serverTiming(w, times)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = writeTask(w, &v, stdout, stderr) // a caller that is gone needs no answer
	return nil
}

// missing is how many bytes must be fetched for an answer with up to maxInline
// of a stream: none when the record holds them.
func missing(st *task.Stream, maxInline int64) int64 {
	need := min(st.Kept, maxInline)
	if need <= int64(len(st.Head)) {
		return 0
	}
	return need
}

// inline gives both streams as far as the answer shows them. What cannot be had
// any more leaves the head and a mark in v.
func (h *Handler) inline(ctx context.Context, t *task.Task, maxInline int64, v *api.Task) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	for _, name := range []string{api.Stdout, api.Stderr} {
		st := streamOf(t.Result, name)
		data := beginning(st, maxInline)
		if n := missing(st, maxInline); n > 0 {
			fetched, err := h.fetch(ctx, t, name, n)
			switch {
			case err == nil:
				data = wholeRunes(fetched, n < st.Kept)
			case context.Cause(ctx) == context.Canceled:
				return nil, nil, err
			default:
				h.cfg.Log.WarnContext(ctx, "output not fetched", "task", t.ID, "stream", name, "err", err)
				v.OutputIncomplete = true
			}
		}
		if name == api.Stdout {
			stdout = data
		} else {
			stderr = data
		}
	}
	return stdout, stderr, nil
}

// fetch gives the first n bytes of a stream, checked against the record when
// they are all of it.
func (h *Handler) fetch(ctx context.Context, t *task.Task, name string, n int64) ([]byte, error) {
	data := make([]byte, 0, n)
	err := h.cfg.Outputs.Output(ctx, t, name, 0, n, false, func(c OutputChunk) error {
		if c.Offset != int64(len(data)) || int64(len(data)+len(c.Data)) > n {
			return fmt.Errorf("%s of task %s: %d bytes at %d do not follow %d of %d", name, t.ID, len(c.Data), c.Offset, len(data), n)
		}
		data = append(data, c.Data...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	st := streamOf(t.Result, name)
	if int64(len(data)) != n || n == st.Kept && sha256.Sum256(data) != st.SHA256 {
		return nil, fmt.Errorf("%s of task %s: %d bytes came that are not the %d recorded", name, t.ID, len(data), n)
	}
	return data, nil
}

// beginning is as much of a stream as the record holds and maxInline allows.
func beginning(st *task.Stream, maxInline int64) []byte {
	n := min(int64(len(st.Head)), maxInline)
	return wholeRunes(st.Head[:n], n < st.Kept)
}

// wholeRunes drops a character that was cut in two at the end, so that text
// stays text. Bytes that are all there is are left as they are.
func wholeRunes(data []byte, cut bool) []byte {
	if !cut || utf8.Valid(data) {
		return data
	}
	if short := data[:len(data)-partialRune(data)]; utf8.Valid(short) {
		return short
	}
	return data
}

// partialRune is the length of the incomplete character that data ends with.
func partialRune(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		last := data[len(data)-n:]
		if utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// writeTask writes v with the streams' bytes, which are encoded as they are
// written: an answer of many megabytes is never in memory twice.
func writeTask(to io.Writer, v *api.Task, stdout, stderr []byte) error {
	streams := []struct {
		name string
		meta *api.Stream
		data []byte
	}{{"stdout", v.Stdout, stdout}, {"stderr", v.Stderr, stderr}}
	v.Stdout, v.Stderr = nil, nil
	w := bufio.NewWriterSize(to, min(32<<10, 2<<10+len(stdout)+len(stderr)))
	if err := openObject(w, v); err != nil {
		return err
	}
	for _, s := range streams {
		fmt.Fprintf(w, `,%q:`, s.name)
		if err := openObject(w, s.meta); err != nil {
			return err
		}
		if err := writeData(w, s.data); err != nil {
			return err
		}
		w.WriteByte('}')
	}
	w.WriteString("}\n")
	return w.Flush() // a bufio.Writer keeps its first error until here
}

// openObject writes a JSON object without its last brace.
func openObject(w *bufio.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = w.Write(bytes.TrimSuffix(b, []byte("}")))
	return err
}

// writeData writes the members encoding and data.
func writeData(w *bufio.Writer, data []byte) error {
	if !utf8.Valid(data) {
		fmt.Fprintf(w, `,"encoding":%q,"data":"`, api.EncodingBase64)
		enc := base64.NewEncoder(base64.StdEncoding, w)
		if _, err := enc.Write(data); err != nil {
			return err
		}
		if err := enc.Close(); err != nil {
			return err
		}
		return w.WriteByte('"')
	}
	fmt.Fprintf(w, `,"encoding":%q,"data":"`, api.EncodingUTF8)
	const step = 16 << 10
	for len(data) > 0 {
		n := min(len(data), step)
		n -= partialRune(data[:n])
		if err := writeText(w, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return w.WriteByte('"')
}

// writeText writes valid UTF-8 as the inside of a JSON string.
func writeText(w *bufio.Writer, data []byte) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(string(data)); err != nil {
		return err
	}
	quoted := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	_, err := w.Write(quoted[1 : len(quoted)-1])
	return err
}
