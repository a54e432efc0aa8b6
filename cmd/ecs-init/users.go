package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"ecs/internal/initwire"
)

// identity is who the program runs as.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

// maxID is the greatest user or group id, as in Docker.
const maxID = 1<<31 - 1

var (
	errReserved = errors.New("this id is reserved")
	errRange    = errors.New("ids go from 0 to 2147483647")
)

// findUser resolves "", name, uid, name:group or uid:gid in the container's own
// files, as Docker does: an explicit group takes the place of all that the files
// say, and a number needs no entry.
func findUser(spec string, further []string) (identity, error) {
	return resolve(spec, further, "/etc/passwd", "/etc/group")
}

func resolve(spec string, further []string, passwd, group string) (identity, error) {
	user, wantGroup, _ := strings.Cut(spec, ":")
	who := identity{home: "/"}
	number, notNumber := strconv.Atoi(user)
	var name string
	err := lines(passwd, func(f []string) bool {
		if len(f) < 4 {
			return false
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		byNumber := (user == "" || notNumber == nil) && uid == number
		if err1 != nil || err2 != nil || f[0] == "" || !byNumber && (notNumber == nil || user == "" || f[0] != user) {
			return false
		}
		name, who.uid, who.gid = f[0], uid, gid
		if len(f) > 5 {
			who.home = f[5]
		}
		return true
	})
	switch {
	case err != nil:
		return who, err
	case name == "" && user != "" && notNumber != nil:
		return who, errors.New("no such user in /etc/passwd")
	case name == "":
		who.uid = number
	}
	if err := who.resolveGroups(name, wantGroup, further, group); err != nil {
		return who, err
	}
	return who, who.check()
}

// resolveGroups finds the explicit group, or else those that the user is a
// member of, and the further ones.
func (i *identity) resolveGroups(user, explicit string, further []string, group string) error {
	found := map[string]int{}
	err := lines(group, func(f []string) bool {
		if len(f) < 3 {
			return false
		}
		gid, err := strconv.Atoi(f[2])
		if err != nil || f[0] == "" {
			return false
		}
		if _, ok := found[f[0]]; !ok {
			found[f[0]] = gid
		}
		if explicit == "" && user != "" && len(f) > 3 && slices.Contains(strings.Split(f[3], ","), user) {
			i.groups = append(i.groups, gid)
		}
		return false
	})
	if err != nil {
		return err
	}
	byName := func(name string) (int, error) {
		if gid, err := strconv.Atoi(name); err == nil {
			return gid, nil
		}
		if gid, ok := found[name]; ok {
			return gid, nil
		}
		return 0, fmt.Errorf("no such group in /etc/group: %q", name)
	}
	if explicit != "" {
		if i.gid, err = byName(explicit); err != nil {
			return err
		}
	}
	for _, name := range further {
		gid, err := byName(name)
		if err != nil {
			return err
		}
		i.groups = append(i.groups, gid)
	}
	return nil
}

func (i *identity) check() error {
	for _, id := range append([]int{i.uid, i.gid}, i.groups...) {
		if id < 0 || id > maxID {
			return fmt.Errorf("id %d: %w", id, errRange)
		}
		if id == initwire.ReservedID {
			return fmt.Errorf("id %d: %w", id, errReserved)
		}
	}
	return nil
}

// lines calls found with the fields of each line until it says true. A file that
// is not there has none.
func lines(path string, found func(fields []string) bool) error {
	// An image may have anything there, a pipe say, which would block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", path)
	}
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			line = slices.Clone(line)
			var rest []byte
			if rest, err = in.ReadBytes('\n'); len(rest) < initwire.MaxPayload {
				line = append(line, rest...)
			}
		}
		if text := strings.TrimSpace(string(line)); text != "" && found(strings.Split(text, ":")) {
			return nil
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
}
