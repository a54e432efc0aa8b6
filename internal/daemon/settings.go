package daemon

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/peterbourgon/ff/v3"
	"go.yaml.in/yaml/v3"
)

// settings reads a daemon's flags, environment and file, in this order of
// precedence.
type settings struct {
	flags     *flag.FlagSet
	name      string
	envPrefix string
	config    string
	level     slog.Level
	debugAddr string
	checkOnly bool
	version   bool
}

// notInFile are the flags that only make sense on the command line.
var notInFile = []string{"config", "check-config", "version"}

func newSettings(p Program) *settings {
	s := &settings{
		flags: flag.NewFlagSet(p.Name, flag.ContinueOnError),
		name:  p.Name,
		// The daemon's name is part of the prefix: ECS_KEY is a client's API
		// key and must not become a daemon's private key.
		envPrefix: strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")),
	}
	s.flags.SetOutput(io.Discard) // errors are told once, by Main
	s.flags.StringVar(&s.config, "config", "", "YAML `file` of settings")
	s.flags.BoolVar(&s.checkOnly, "check-config", false, "check the settings and exit")
	s.flags.BoolVar(&s.version, "version", false, "print the version and exit")
	s.flags.TextVar(&s.level, "log-level", slog.LevelInfo, "least `level` that is logged: debug, info, warn or error")
	s.flags.StringVar(&s.debugAddr, "debug-addr", "", "loopback `host:port` that serves Go's profiles under /debug/pprof/; empty: none")
	p.Define(s.flags)
	return s
}

func (s *settings) parse(args []string) error {
	err := ff.Parse(s.flags, args,
		ff.WithEnvVarPrefix(s.envPrefix),
		ff.WithConfigFileFlag("config"),
		ff.WithConfigFileParser(s.parseFile))
	if err != nil {
		return err
	}
	if s.flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", s.flags.Arg(0))
	}
	return nil
}

// parseFile reads one YAML mapping of settings to scalars or lists of scalars.
// It names every key that is not a setting, with its line.
func (s *settings) parseFile(r io.Reader, set func(name, value string) error) error {
	var doc yaml.Node
	if err := yaml.NewDecoder(r).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty file sets nothing
		}
		return fmt.Errorf("read %s: %w", s.config, err)
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want `setting: value` lines", s.config, top.Line)
	}
	var faults []error
	seen := map[string]bool{}
	for i := 0; i < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if err := s.setFromFile(key.Value, value, seen, set); err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", s.config, key.Line, err))
		}
	}
	return errors.Join(faults...)
}

func (s *settings) setFromFile(key string, value *yaml.Node, seen map[string]bool, set func(name, value string) error) error {
	name := strings.ReplaceAll(key, "_", "-")
	if s.flags.Lookup(name) == nil || slices.Contains(notInFile, name) {
		return fmt.Errorf("unknown setting %q%s", key, s.meant(name))
	}
	if seen[name] {
		return fmt.Errorf("setting %q is given twice", key)
	}
	seen[name] = true
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		if _, list := s.flags.Lookup(name).Value.(*List); !list {
			return fmt.Errorf("setting %q takes one value, not a list", key)
		}
		values = value.Content
	}
	var given []string
	for _, v := range values {
		if v.Kind != yaml.ScalarNode {
			return fmt.Errorf("setting %q takes a plain value", key)
		}
		if v.Tag != "!!null" {
			given = append(given, v.Value)
		}
	}
	if len(given) == 0 {
		return nil
	}
	if err := set(name, strings.Join(given, ",")); err != nil {
		return fmt.Errorf("setting %q: %w", key, errors.Unwrap(err))
	}
	return nil
}

// meant suggests the setting whose name is nearest.
func (s *settings) meant(name string) string {
	best, distance := "", 3
	s.flags.VisitAll(func(f *flag.Flag) {
		if d := editDistance(name, f.Name); d < distance && !slices.Contains(notInFile, f.Name) {
			best, distance = f.Name, d
		}
	})
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", strings.ReplaceAll(best, "-", "_"))
}

// editDistance is Levenshtein's, on bytes: setting names are ASCII.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func (s *settings) help(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s [--setting value ...]\n\n"+
		"Every setting is also a variable %s_SETTING and a key of the file given by\n"+
		"--config; a flag wins over the variable, the variable over the file.\n\n", s.name, s.envPrefix)
	s.flags.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  --%s %s\n      %s", f.Name, value, usage)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			fmt.Fprintf(w, " (default %s)", f.DefValue)
		}
		fmt.Fprintln(w)
	})
}
