package api

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"ecs/internal/task"
)

const (
	maxLabelKey   = 63
	maxLabelValue = 256
	maxZones      = 32
	maxPath       = 4095 // what the kernel takes
	maxUser       = 256
	maxID         = 1<<31 - 1 // of a user or group
)

// grammar is what names must look like.
type grammar struct{ label, zone, user *regexp.Regexp }

func newGrammar() *grammar {
	return &grammar{
		label: regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$`),
		zone:  regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`),
		user:  regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.@+-]*\$?$`),
	}
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("must be a whole number")
	}
	return n, nil
}

func formatCount(n int64) string { return strconv.FormatInt(n, 10) }

// checkArguments refuses what the engine would start and the kernel then
// refuse: that shows as a program which exited with 1.
func checkArguments(f *faults, pointer string, args []string) {
	for i, a := range args {
		if len(a) > task.MaxArgBytes {
			f.add(at(pointer, i), task.CodeTooLarge, "is %d bytes long, the most for one argument is %d", len(a), task.MaxArgBytes)
		}
	}
}

// checkTotal bounds everything the program is started with.
func checkTotal(f *faults, lists ...[]string) {
	total := 0
	for _, list := range lists {
		for _, s := range list {
			total += len(s) + 1
		}
	}
	if total > task.MaxArgsBytes {
		f.add("", task.CodeTooLarge, "arguments and variables take %d bytes together, the most is %d", total, task.MaxArgsBytes)
	}
}

// checkEnv wants KEY=value. Values may hold newlines.
func checkEnv(f *faults, pointer string, env []string) {
	for i, e := range env {
		name, _, found := strings.Cut(e, "=")
		switch {
		case !found:
			f.add(at(pointer, i), "", "must be KEY=value: there is no = in it")
		case name == "":
			f.add(at(pointer, i), "", "must be KEY=value: the key is empty")
		case len(e) > task.MaxArgBytes:
			f.add(at(pointer, i), task.CodeTooLarge, "is %d bytes long, the most for one variable is %d", len(e), task.MaxArgBytes)
		}
	}
}

// checkWorkdir keeps the program's directory out of the kernel's own file
// systems and free of ways around that.
func checkWorkdir(f *faults, pointer, dir string) {
	switch {
	case dir == "":
	case !strings.HasPrefix(dir, "/"):
		f.add(pointer, "", "must be an absolute path")
	case len(dir) > maxPath:
		f.add(pointer, "", "must be at most %d bytes long", maxPath)
	case slices.Contains(strings.Split(dir, "/"), ".."):
		f.add(pointer, "", `must not contain ".."`)
	case strings.HasPrefix(path.Clean(dir)+"/", "/proc/"), strings.HasPrefix(path.Clean(dir)+"/", "/sys/"):
		f.add(pointer, "", "must not be in /proc or /sys")
	}
}

// checkUser wants name or uid, with :group or :gid behind it or not.
func (g *grammar) checkUser(f *faults, pointer, user string) {
	if user == "" {
		return
	}
	if len(user) > maxUser {
		f.add(pointer, "", "must be at most %d bytes long", maxUser)
		return
	}
	name, group, hasGroup := strings.Cut(user, ":")
	parts := []string{name}
	if hasGroup {
		parts = append(parts, group)
	}
	for _, part := range parts {
		if n, err := strconv.ParseInt(part, 10, 64); err == nil || isNumber(part) {
			if err != nil || n < 0 || n > maxID {
				f.add(pointer, "", "must have ids between 0 and %d", maxID)
				return
			}
			continue
		}
		if !g.user.MatchString(part) {
			f.add(pointer, "", `must be a user name or id, such as "nobody", "1000" or "1000:1000"`)
			return
		}
	}
}

// isNumber reports whether s is meant as a number, however large.
func isNumber(s string) bool {
	return strings.Trim(s, "-+") != "" && strings.Trim(strings.TrimLeft(s, "-+"), "0123456789") == ""
}

func (g *grammar) checkLabel(f *faults, pointer, key, value string) {
	switch {
	case len(key) > maxLabelKey || !g.label.MatchString(key):
		f.add(pointer, "", "has a bad name: at most %d letters, digits and . _ - / and no such sign at either end", maxLabelKey)
	case len(value) > maxLabelValue:
		f.add(pointer, "", "must be at most %d bytes long", maxLabelValue)
	case strings.ContainsFunc(value, unicode.IsControl):
		f.add(pointer, "", "must not contain control characters")
	}
}

// checkZones wants names of zones, each once.
func (g *grammar) checkZones(f *faults, pointer string, zones []string) {
	if len(zones) > maxZones {
		f.add(pointer, "", "must name at most %d zones", maxZones)
		return
	}
	for i, z := range zones {
		switch {
		case !g.zone.MatchString(z):
			f.add(at(pointer, i), "", "is not the name of a zone")
		case slices.Index(zones, z) != i:
			f.add(at(pointer, i), "", "is there more than once")
		}
	}
}

// capabilities gives the asked ones in their plain form, sorted and each once.
func capabilities(f *faults, pointer string, asked, allowed []string) []string {
	var plain []string
	for i, name := range asked {
		c := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if !slices.Contains(allowed, c) {
			f.add(at(pointer, i), "", "is not a capability that tasks may have here; they may have %s", strings.Join(allowed, ", "))
			continue
		}
		plain = append(plain, c)
	}
	slices.Sort(plain)
	return slices.Compact(plain)
}

// defaultCapabilities are those that Docker gives a container by itself.
func defaultCapabilities() []string {
	return []string{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
}

func at(pointer string, i int) string { return pointer + "/" + strconv.Itoa(i) }
