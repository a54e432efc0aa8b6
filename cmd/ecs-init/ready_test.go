package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsOfAFileIsPopulated(t *testing.T) {
	for _, c := range []struct {
		line                string
		start, size, advice uintptr
	}{
		{"00400000-005a2000 r-xp 00000000 fe:00 11 /run/ecs/init\n", 0x400000, 0x1a2000, unix.MADV_POPULATE_READ},
		{"005a2000-0075c000 r--p 001a2000 fe:00 11 /run/ecs/init\n", 0x5a2000, 0x1ba000, unix.MADV_POPULATE_READ},
		{"0075c000-0076a000 rw-p 0035c000 fe:00 11 /run/ecs/init\n", 0x75c000, 0xe000, unix.MADV_POPULATE_WRITE},
		{"0075c000-0076a000 ---p 0035c000 fe:00 11 /run/ecs/init\n", 0, 0, 0},
		{"0076a000-007ac000 rw-p 00000000 00:00 0 \n", 0, 0, 0},
		{"7ffc1000-7ffe2000 rw-p 00000000 00:00 0 [stack]\n", 0, 0, 0},
		{"zz-7ffe2000 r-xp 00000000 fe:00 11 /run/ecs/init\n", 0, 0, 0},
		{"", 0, 0, 0},
	} {
		start, size, advice, ok := ofTheFile([]byte(c.line))
		if want := c.size > 0; ok != want || ok && (start != c.start || size != c.size || advice != c.advice) {
			t.Errorf("%q: got %#x, %#x, advice %d, %v; want %#x, %#x, advice %d", c.line, start, size, advice, ok, c.start, c.size, c.advice)
		}
	}
}
