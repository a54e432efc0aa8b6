package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"ecs/internal/task"
)

// MeasureCapacity gives what the machine has for tasks: its CPUs and memory
// less what is reserved for everything else. It is an error when nothing is
// left of either.
//
// The machine's figures count and not those of this process's own cgroup:
// containers are the engine's children, not the agent's.
func MeasureCapacity(reserve task.Capacity) (task.Capacity, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return task.Capacity{}, fmt.Errorf("measure the memory: %w", err)
	}
	defer f.Close()
	memory, err := memTotal(f)
	if err != nil {
		return task.Capacity{}, fmt.Errorf("measure the memory: %w", err)
	}
	return less(task.Capacity{MilliCPU: int64(runtime.NumCPU()) * 1000, Memory: memory}, reserve)
}

func less(has, reserve task.Capacity) (task.Capacity, error) {
	left := task.Capacity{MilliCPU: has.MilliCPU - reserve.MilliCPU, Memory: has.Memory - reserve.Memory, Pids: has.Pids}
	if left.MilliCPU <= 0 {
		return left, fmt.Errorf("reserve %dm CPU: the machine has %dm", reserve.MilliCPU, has.MilliCPU)
	}
	if left.Memory < task.MinMemory {
		return left, fmt.Errorf("reserve %d bytes of memory: the machine has %d", reserve.Memory, has.Memory)
	}
	return left, nil
}

// memTotal reads the machine's memory in bytes from the text of /proc/meminfo.
func memTotal(r io.Reader) (int64, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// MemTotal:       24736140 kB
		fields := bytes.Fields(lines.Bytes())
		if len(fields) != 3 || string(fields[0]) != "MemTotal:" || string(fields[2]) != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil || kib <= 0 || kib > 1<<50 {
			return 0, fmt.Errorf("a MemTotal of %q", fields[1])
		}
		return kib << 10, nil
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("no MemTotal in kB")
}
