package loadtest

import (
	"fmt"
	"html"
	"io"
	"strings"
	"time"
)

// WriteTSV writes a row for each kind, times in milliseconds.
func (r *Report) WriteTSV(w io.Writer) error {
	var b strings.Builder
	b.WriteString("kind\trequests\tfailed\tper_second\tp50_ms\tp90_ms\tp99_ms\tmax_ms\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "%s\t%d\t%d\t%.1f\t%.3f\t%.3f\t%.3f\t%.3f\n", row.Kind, row.Requests, row.Failed,
			float64(row.Requests)/max(r.Took.Seconds(), 1e-9), ms(row.P50), ms(row.P90), ms(row.P99), ms(row.Max))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// The plot's measures, in pixels.
const (
	plotWidth, labelWidth, rowHeight, barHeight = 760, 110, 64, 14
	barRoom                                     = plotWidth - labelWidth - 120
)

// WriteSVG plots p50, p90 and p99 of each kind as bars. Every kind has a scale of
// its own: a noop beside a container would not be seen.
func (r *Report) WriteSVG(w io.Writer) error {
	var b strings.Builder
	height := 60 + rowHeight*len(r.Rows)
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", plotWidth, height)
	fmt.Fprintf(&b, "<text x=\"10\" y=\"24\" font-size=\"15\">%s</text>\n",
		html.EscapeString(fmt.Sprintf("%.4g requests a second for %s, in milliseconds", r.Rate, r.Duration)))
	for i, row := range r.Rows {
		y := 50 + i*rowHeight
		fmt.Fprintf(&b, "<text x=\"10\" y=\"%d\" font-size=\"13\">%s</text>\n", y+11, html.EscapeString(row.Kind))
		fmt.Fprintf(&b, "<text x=\"10\" y=\"%d\" fill=\"#666\">%d, %d failed</text>\n", y+28, row.Requests, row.Failed)
		for j, bar := range []struct {
			name, fill string
			took       time.Duration
		}{{"p50", "#2f6fde", row.P50}, {"p90", "#7fa6ea", row.P90}, {"p99", "#b8bcc4", row.P99}} {
			width := max(1, float64(bar.took)/max(float64(row.P99), 1)*barRoom)
			top := y + j*(barHeight+2)
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", labelWidth, top, width, barHeight, bar.fill)
			fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\">%s %.1f</text>\n", labelWidth+width+6, top+barHeight-3, bar.name, ms(bar.took))
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
