package fake

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"ecs/agent/runtime"
)

// blockLines and spewPeriod shape how much is written at once.
const (
	blockLines = 1000
	spewPeriod = 251
)

// step is one step of a script. It returns the program's end, or nil to go on.
// It looks at ctx as often as it writes or waits.
type step func(ctx context.Context, to stdio, args []string) (*runtime.Exit, error)

// program is a container as its program sees it.
type program struct{ *container }

// stdio is what a script reads and writes.
type stdio struct {
	runtime.Sink
	input *input
	files *files
}

func (p program) stdio(ctx context.Context) stdio {
	out, err := until{ctx, p.streams[0]}, until{ctx, p.streams[1]}
	if p.spec.TTY {
		err = out // all of it goes to the terminal
	}
	return stdio{runtime.Sink{Stdout: out, Stderr: err}, p.input, &p.files}
}

// steps are the words of the language.
func steps() map[string]step {
	return map[string]step{
		"print":  text(func(s stdio) io.Writer { return s.Stdout }, ""),
		"eprint": text(func(s stdio) io.Writer { return s.Stderr }, ""),
		"echo":   text(func(s stdio) io.Writer { return s.Stdout }, "\n"),
		"bytes":  everyByte,
		"lines":  lines,
		"spew":   spew,
		"sleep":  nap,
		"exit":   exit,
		"signal": signal,
		"cat":    cat,
		"size":   size,
		"write":  leave(tar.TypeReg),
		"mkdir":  leave(tar.TypeDir),
		"link":   leave(tar.TypeSymlink),
		"fill":   fill,
		"oom": func(context.Context, stdio, []string) (*runtime.Exit, error) {
			return &runtime.Exit{Code: 128 + 9, Signal: "SIGKILL", OOMKilled: true}, nil
		},
	}
}

func known(word string) bool { return steps()[word] != nil }

// run performs a script and gives its end, or nil when ctx ended it.
func run(ctx context.Context, script []string, p program) *runtime.Exit {
	language, to := steps(), p.stdio(ctx)
	for len(script) > 0 {
		var words []string
		words, script = cut(script)
		if len(words) == 0 {
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		do := language[words[0]]
		if do == nil {
			fmt.Fprintf(to.Stderr, "no such step: %s\n", words[0])
			return &runtime.Exit{Code: 2}
		}
		end, err := do(ctx, to, words[1:])
		switch {
		case ctx.Err() != nil && end == nil:
			return nil
		case err != nil:
			fmt.Fprintf(to.Stderr, "%s: %v\n", words[0], err)
			return &runtime.Exit{Code: 2}
		case end != nil:
			return end
		}
	}
	return &runtime.Exit{}
}

// cut takes the words up to the next ";".
func cut(script []string) (words, rest []string) {
	for i, w := range script {
		if w == ";" {
			return script[:i], script[i+1:]
		}
	}
	return script, nil
}

func text(of func(stdio) io.Writer, end string) step {
	return func(_ context.Context, to stdio, args []string) (*runtime.Exit, error) {
		_, err := io.WriteString(of(to), strings.Join(args, " ")+end)
		return nil, err
	}
}

func everyByte(_ context.Context, to stdio, _ []string) (*runtime.Exit, error) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	_, err := to.Stdout.Write(all)
	return nil, err
}

func lines(ctx context.Context, to stdio, args []string) (*runtime.Exit, error) {
	n, err := number(args)
	if err != nil {
		return nil, err
	}
	var out [2]bytes.Buffer
	for i := range n {
		fmt.Fprintf(&out[i%2], "line %d\n", i)
		if i%blockLines != blockLines-1 && i != n-1 {
			continue
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		for s, w := range []io.Writer{to.Stdout, to.Stderr} {
			if _, err := out[s].WriteTo(w); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func spew(ctx context.Context, to stdio, args []string) (*runtime.Exit, error) {
	n, err := number(args)
	if err != nil {
		return nil, err
	}
	block := make([]byte, spewPeriod*128)
	for i := range block {
		block[i] = byte(i % spewPeriod)
	}
	for n > 0 && ctx.Err() == nil {
		k := min(n, len(block))
		if _, err := to.Stdout.Write(block[:k]); err != nil {
			return nil, err
		}
		n -= k
	}
	return nil, nil
}

func nap(ctx context.Context, _ stdio, args []string) (*runtime.Exit, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("got %d words, want a duration", len(args))
	}
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return nil, err
	}
	_ = sleep(ctx, d) // run looks at ctx
	return nil, nil
}

func exit(_ context.Context, _ stdio, args []string) (*runtime.Exit, error) {
	code, err := number(args)
	if err != nil {
		return nil, err
	}
	return &runtime.Exit{Code: code & 0xff}, nil
}

// signal ends as the real engine tells it: by the code only.
func signal(_ context.Context, _ stdio, args []string) (*runtime.Exit, error) {
	numbers := map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "SEGV": 11, "TERM": 15}
	n := numbers[strings.TrimPrefix(strings.Join(args, " "), "SIG")]
	if n == 0 {
		return nil, fmt.Errorf("no such signal: %q", args)
	}
	return &runtime.Exit{Code: 128 + n}, nil
}

func number(args []string) (int, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("got %d words, want a number", len(args))
	}
	return strconv.Atoi(args[0])
}

// cat copies the standard input to the standard output.
func cat(ctx context.Context, to stdio, _ []string) (*runtime.Exit, error) {
	for {
		p, err := to.input.next(ctx)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err == nil {
			_, err = to.Stdout.Write(p)
		}
		if err != nil {
			return nil, err
		}
	}
}

// size prints the terminal's rows and columns.
func size(_ context.Context, to stdio, _ []string) (*runtime.Exit, error) {
	rows, cols := to.input.size()
	_, err := fmt.Fprintf(to.Stdout, "%d %d\n", rows, cols)
	return nil, err
}
