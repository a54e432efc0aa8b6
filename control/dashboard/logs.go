package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ecs/proto/api"
)

// logsView is what the nodes wrote about one request.
type logsView struct {
	CID   string
	Asked bool // false: only the form is shown
	Fault string
	api.LogList
	Lines []logLine
}

// logLine is one line, apart for the eye.
type logLine struct {
	Time, Day, Level, Tone, Node, Message string
	Rest                                  []field
	TaskAt                                string // address of the task it names
}

type field struct{ Name, Value string }

func (t *turn) logs() error {
	v := &logsView{CID: strings.TrimSpace(t.r.URL.Query().Get("cid"))}
	status := http.StatusOK
	if v.CID != "" {
		v.Asked = true
		err := t.v.Ask("/v2/logs?"+url.Values{"cid": {v.CID}}.Encode(), &v.LogList)
		if p, ok := err.(*api.Problem); ok && p.Code == api.CodeBadRequest {
			v.Asked, v.Fault, status = false, "This is no correlation id: it has at most 64 letters, digits, '.', '_' and '-'. It is the X-Correlation-ID of an answer, or the cid of a task or an error.", p.Status
		} else if err != nil {
			return err
		}
	}
	for _, text := range v.LogList.Lines {
		line, err := t.line(text)
		if err != nil {
			return err
		}
		v.Lines = append(v.Lines, line)
	}
	return t.render(status, "logs", page{Title: "Log lines", Nav: "logs", Data: v})
}

// line reads a line's members in their order.
func (t *turn) line(text json.RawMessage) (logLine, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var l logLine
	if _, err := dec.Token(); err != nil {
		return l, fmt.Errorf("read a log line: %w", err)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return l, fmt.Errorf("read a log line: %w", err)
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return l, fmt.Errorf("read a log line: %w", err)
		}
		l.put(fmt.Sprint(name), value, t.d.base)
	}
	return l, nil
}

func (l *logLine) put(name string, value any, base string) {
	text, ok := value.(string)
	if !ok {
		b, _ := json.Marshal(value) // it came from JSON
		text = string(b)
	}
	text = plain(text)
	switch name {
	case "time":
		l.Time = text
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			l.Day, l.Time = at.UTC().Format("2006-01-02"), at.UTC().Format("15:04:05.000")
		}
	case "level":
		l.Level, l.Tone = text, map[string]string{"ERROR": "bad", "WARN": "warn"}[text]
	case "node":
		l.Node = text
	case "msg":
		l.Message = text
	case "cid":
	case "task":
		l.TaskAt = base + "tasks/" + url.PathEscape(text)
		l.Rest = append(l.Rest, field{plain(name), text})
	case "took", "ran", "total":
		if n, ok := value.(json.Number); ok { // slog writes nanoseconds
			if ns, err := n.Int64(); err == nil {
				text = time.Duration(ns).Round(10 * time.Microsecond).String()
			}
		}
		l.Rest = append(l.Rest, field{plain(name), text})
	default:
		l.Rest = append(l.Rest, field{plain(name), text})
	}
}
