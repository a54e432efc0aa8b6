package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// table aligns columns; the first is the row's name.
type table struct{ w *tabwriter.Writer }

func newTable(w *strings.Builder, columns ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
	t.row("%s", strings.Join(columns, "\t"))
	return t
}

func (t table) row(format string, values ...any) {
	fmt.Fprintf(t.w, format+"\t\n", values...)
}

func (t table) end() {
	_ = t.w.Flush() // into memory
	fmt.Fprintln(t.w)
	_ = t.w.Flush()
}
