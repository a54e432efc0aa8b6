package initwire

import (
	"fmt"
	"strings"
)

// capabilities are their names by number.
var capabilities = [...]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL",
	"SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN",
	"NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM",
	"BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"}

// OwnCaps are what the container of an init needs beside what its program keeps.
var OwnCaps = []string{"SETUID", "SETGID", "SETPCAP", "KILL"}

// CapSet turns names, with or without "CAP_", into an Order's Caps.
func CapSet(names []string) (uint64, error) {
	var set uint64
next:
	for _, name := range names {
		for number, known := range capabilities {
			if strings.TrimPrefix(strings.ToUpper(name), "CAP_") == known {
				set |= 1 << number
				continue next
			}
		}
		return 0, fmt.Errorf("no such capability: %q", name)
	}
	return set, nil
}
