package main

import (
	"fmt"
	"html"
	"os"
	"strings"
)

const (
	plotWidth, labelWidth, barHeight = 760, 290, 18
	barRoom                          = plotWidth - labelWidth - 90
)

// plot draws the report as bars: time for one, containers and tasks a second.
type plot struct {
	body strings.Builder
	y    int
}

func (r *report) plot(file string) error {
	p := &plot{y: 20}
	var bars []bar
	for _, row := range r.Rows {
		bars = append(bars, bar{row.Name, row.P50, fmt.Sprintf("%.1f ms", row.P50)})
	}
	p.chart("One at a time, p50: less is better", bars)
	bars = nil
	for _, t := range r.Throughput {
		bars = append(bars, bar{fmt.Sprintf("%s, %d in flight", t.Name, t.InFlight), t.PerSec, fmt.Sprintf("%.1f /s", t.PerSec)})
	}
	p.chart("Containers run and removed a second: more is better", bars)
	bars = nil
	if r.ControlPlane != nil {
		for _, run := range r.ControlPlane.Closed {
			bars = append(bars, bar{fmt.Sprintf("%d in flight", run.InFlight), run.PerSec, fmt.Sprintf("%.0f /s", run.PerSec)})
		}
	}
	p.chart("The control plane alone, durable tasks a second", bars)
	p.line(10, "#666", 11, r.Machine)
	p.y += 16
	text := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif">
<rect width="100%%" height="100%%" fill="white"/>
%s</svg>
`, plotWidth, p.y, p.body.String())
	return os.WriteFile(file, []byte(text), 0o644)
}

type bar struct {
	label string
	value float64
	shown string
}

func (p *plot) chart(title string, bars []bar) {
	if len(bars) == 0 {
		return
	}
	p.line(10, "black", 14, title)
	p.y += 12
	most := 0.0
	for _, b := range bars {
		most = max(most, b.value)
	}
	for _, b := range bars {
		fill := "#b8bcc4"
		if strings.HasPrefix(b.label, "ECS") || strings.HasSuffix(title, "tasks a second") {
			fill = "#2f6fde"
		}
		width := max(1, b.value/max(most, 1e-9)*barRoom)
		fmt.Fprintf(&p.body, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", labelWidth, p.y, width, barHeight-4, fill)
		p.y += barHeight - 7
		p.line(10, "black", 12, b.label)
		fmt.Fprintf(&p.body, "<text x=\"%.1f\" y=\"%d\" font-size=\"12\">%s</text>\n", labelWidth+width+6, p.y, html.EscapeString(b.shown))
		p.y += 7
	}
	p.y += 26
}

func (p *plot) line(x int, fill string, size int, text string) {
	fmt.Fprintf(&p.body, "<text x=\"%d\" y=\"%d\" font-size=\"%d\" fill=\"%s\">%s</text>\n", x, p.y, size, fill, html.EscapeString(text))
}
