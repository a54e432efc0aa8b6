package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration travels as a Go-style string, "1m30s".
type Duration time.Duration

// String gives the shortest form: "5m", not "5m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalJSON gives the string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON takes the string.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(`a duration is a string such as "90s"`)
	}
	parsed, err := ParseDuration(s)
	*d = Duration(parsed)
	return err
}

// ParseDuration takes what Duration.String gives and everything else that
// time.ParseDuration takes.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf(`%s is not a duration: write a number with a unit, such as "90s", "5m" or "1h30m"`, quote(s))
	}
	return d, nil
}

// Size is a number of bytes. It travels as a string in the largest unit that
// divides it, "128MiB"; a plain number of bytes is taken too.
type Size int64

// Units of sizes, the largest first. Decimal units are taken but never given.
var sizeUnits = [...]struct {
	name  string
	bytes int64
	given bool
}{
	{"TiB", 1 << 40, true}, {"GiB", 1 << 30, true}, {"MiB", 1 << 20, true}, {"KiB", 1 << 10, true},
	{"TB", 1e12, false}, {"GB", 1e9, false}, {"MB", 1e6, false}, {"KB", 1e3, false}, {"B", 1, true},
}

// String gives the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.given && s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalJSON gives the string.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON takes the string or a number of bytes.
func (s *Size) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, err := ParseSize(text)
	*s = Size(n)
	return err
}

// ParseSize takes a number of bytes, with a unit (KiB, MiB, GiB, TiB, KB, MB,
// GB, TB, B) or none. It may be negative; whoever uses it sets the bounds.
func ParseSize(s string) (int64, error) {
	number, unit := s, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && !strings.HasPrefix(number, "+") {
		if n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return 0, fmt.Errorf("%s is beyond every bound", quote(s))
		}
		return n * unit, nil
	}
	f, ok := plainFloat(number)
	if bytes := f * float64(unit); ok && unit > 1 && math.Abs(bytes) < 1<<62 && bytes == math.Trunc(bytes) {
		return int64(bytes), nil
	}
	return 0, fmt.Errorf(`%s is not a size: write a whole number of bytes or one with a unit, such as "128MiB" or "1GiB"`, quote(s))
}

// CPU is thousandths of a core. It travels as a number of cores, 0.25; the
// string "250m" is taken too.
type CPU int64

// String gives the number of cores.
func (c CPU) String() string { return strconv.FormatFloat(float64(c)/1000, 'f', -1, 64) }

// MarshalJSON gives the number of cores.
func (c CPU) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalJSON takes a number of cores or a string.
func (c *CPU) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, err := ParseCPU(text)
	*c = CPU(n)
	return err
}

// maxMilliCPU is far beyond any machine and keeps sums from overflowing.
const maxMilliCPU = 1e9

// ParseCPU gives thousandths of a core for "0.25" or "250m". It may be
// negative; whoever uses it sets the bounds.
func ParseCPU(s string) (int64, error) {
	if milli, ok := strings.CutSuffix(s, "m"); ok {
		if n, err := strconv.ParseInt(milli, 10, 64); err == nil && n <= maxMilliCPU && n >= -maxMilliCPU {
			return n, nil
		}
	} else if f, ok := plainFloat(s); ok && math.Abs(f) <= maxMilliCPU/1000 {
		milli := math.Round(f * 1000)
		if math.Abs(f*1000-milli) < 1e-6 {
			return int64(milli), nil
		}
	}
	return 0, fmt.Errorf(`%s is not an amount of CPU: write cores with at most three decimals, such as 0.25, or thousandths, such as "250m"`, quote(s))
}

// plainFloat parses a decimal number. Words (NaN, Inf) and hexadecimals, which
// strconv takes, are no numbers here.
func plainFloat(s string) (float64, bool) {
	if s == "" || strings.Trim(s, "0123456789.eE+-") != "" || s[0] == '+' {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

// quote shows a caller's own text in a message, shortened and on one line.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
