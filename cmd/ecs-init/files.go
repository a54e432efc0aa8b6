package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// makeWorkdir makes a missing working directory as root and enters it. Where
// root may not, the program's user may.
func makeWorkdir(dir string) (entered bool, err error) {
	if dir == "" {
		dir = "/"
	}
	if !filepath.IsAbs(dir) {
		return false, &failure{initwire.BadWorkdir, "working directory " + strconv.Quote(dir) + " is not absolute", nil}
	}
	err = syscall.Chdir(dir)
	if err == syscall.ENOENT {
		// Whatever the program's umask is, others must get in.
		before := syscall.Umask(0o022)
		err = os.MkdirAll(dir, 0o755)
		syscall.Umask(before)
		if err != nil {
			return false, &failure{initwire.BadWorkdir, "make the working directory", err}
		}
		err = syscall.Chdir(dir)
	}
	switch err {
	case nil:
		return true, nil
	case syscall.EACCES, syscall.EPERM:
		return false, nil
	}
	return false, &failure{initwire.BadWorkdir, "working directory " + strconv.Quote(dir), err}
}

// placeFiles writes files as the program's user, or else, where that user may
// not, as root. It is root with the user's group.
func placeFiles(files []initwire.File, uid int) error {
	if len(files) == 0 {
		return nil
	}
	for _, f := range files {
		if err := seteuid(uid); err != nil {
			return err
		}
		err := placeFile(f, false)
		if err := seteuid(0); err != nil {
			return err
		}
		if denied(err) && uid != 0 {
			err = placeFile(f, true)
		}
		if err != nil {
			return &failure{initwire.BadFile, "write " + strconv.Quote(f.Path), err}
		}
	}
	return nil
}

func denied(err error) bool { return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) }

// seteuid changes whose rights this thread has, and leaves the way back.
func seteuid(uid int) error {
	if err := onThread(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); err != nil {
		return &failure{initwire.BadUser, "act as user " + strconv.Itoa(uid), err}
	}
	return nil
}

// placeFile writes one file. One that has to be root's gives its group, which is
// the program's, the rights that its owner would have had.
func placeFile(f initwire.File, asRoot bool) error {
	mode := f.Mode & 0o777
	if mode == 0 {
		mode = 0o644
	}
	if asRoot {
		mode |= mode & 0o700 >> 3
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	// Without blocking: an image may have a pipe there.
	fd, err := syscall.Open(f.Path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC|syscall.O_NONBLOCK|syscall.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	for rest := f.Content; len(rest) > 0; {
		n, err := syscall.Write(fd, rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return syscall.Fchmod(fd, mode)
}
