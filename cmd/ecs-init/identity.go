package main

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

// joinGroups takes the user's groups, while it is still root.
func (i identity) joinGroups() error {
	groups := make([]uint32, len(i.groups)+1)
	for n, gid := range i.groups {
		groups[n] = uint32(gid)
	}
	if err := onThread(unix.SYS_SETGROUPS, uintptr(len(i.groups)), uintptr(unsafe.Pointer(&groups[0]))); err != nil {
		return &failure{initwire.BadUser, "join the groups of user " + strconv.Itoa(i.uid), err}
	}
	gid := uintptr(i.gid)
	if err := onThread(unix.SYS_SETRESGID, gid, gid, gid); err != nil {
		return &failure{initwire.BadUser, "become group " + strconv.Itoa(i.gid), err}
	}
	return nil
}

// become takes the user and leaves every privilege but the capabilities kept,
// which only root has then. bounding are all that there are to be dropped.
func (i identity) become(keep, bounding uint64) error {
	caps, err := capget()
	if err != nil {
		return err
	}
	for number := range uintptr(capabilityNumbers) {
		if bounding&^keep&(1<<number) == 0 {
			continue
		}
		if err := onThread(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil {
			return &failure{initwire.BadOther, "drop capability " + strconv.Itoa(int(number)), err}
		}
	}
	if err := onThread(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return &failure{initwire.BadOther, "clear ambient capabilities", err}
	}
	uid := uintptr(i.uid)
	if err := onThread(unix.SYS_SETRESUID, uid, uid, uid); err != nil {
		return &failure{initwire.BadUser, "become user " + strconv.Itoa(i.uid), err}
	}
	left := capSets{}
	if i.uid == 0 {
		left.permitted = caps.permitted & keep
		left.effective = left.permitted
	}
	if err := left.set(); err != nil {
		return &failure{initwire.BadOther, "give up capabilities", err}
	}
	return nil
}
