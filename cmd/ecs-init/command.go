package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// defaultPath is Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func lookup(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if key, value, _ := strings.Cut(e, "="); key == name {
			return value
		}
	}
	return ""
}

// completeEnv adds what Docker adds.
func completeEnv(env []string, home string, terminal bool) []string {
	add := func(name, value string) {
		if lookup(env, name) == "" {
			env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
			env = append(env, name+"="+value)
		}
	}
	add("PATH", defaultPath)
	add("HOME", home)
	if host, err := os.Hostname(); err == nil {
		add("HOSTNAME", host)
	}
	if terminal {
		add("TERM", "xterm")
	}
	return env
}

// lookPath finds a command as a shell does: as it is if it has a slash, else in
// PATH.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	var found error
	for _, dir := range filepath.SplitList(lookup(env, "PATH")) {
		path := filepath.Join(dir, name)
		if dir == "" {
			path = "./" + name
		}
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if why := err.(*failure); why.reason == initwire.NotExecutable {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", &failure{initwire.NoCommand, "no command " + strconv.Quote(name) + " in PATH", syscall.ENOENT}
}

func executable(path string) error {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	switch {
	case err == syscall.ENOENT || err == syscall.ENOTDIR || err == syscall.ELOOP || err == syscall.ENAMETOOLONG:
		return &failure{initwire.NoCommand, "no command " + strconv.Quote(path), err}
	case err == nil && st.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		err = syscall.EISDIR
	case err == nil:
		err = unix.Access(path, unix.X_OK) // all ids are the program's by now
	}
	if err != nil {
		return &failure{initwire.NotExecutable, "execute " + strconv.Quote(path), err}
	}
	return nil
}
