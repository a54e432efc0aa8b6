package api

import (
	"encoding/json"
	"testing"
	"time"
)

func TestSizesAreReadInEveryUnit(t *testing.T) {
	for _, tc := range []struct {
		text string
		want int64
	}{
		{"0", 0}, {"1048576", 1 << 20}, {"128MiB", 128 << 20}, {"1GiB", 1 << 30}, {"1KiB", 1 << 10}, {"2TiB", 2 << 40},
		{"1KB", 1000}, {"1MB", 1e6}, {"1GB", 1e9}, {"7B", 7}, {"1.5MiB", 3 << 19}, {"0.5KiB", 512}, {"-1", -1}, {"-1MiB", -1 << 20},
	} {
		if got, err := ParseSize(tc.text); err != nil || got != tc.want {
			t.Errorf("ParseSize(%q): got %d, %v, want %d", tc.text, got, err, tc.want)
		}
	}
	for _, text := range []string{"", "MiB", "1 MiB", "1mib", "500m", "1.5", "0.3KiB", "+1", "NaN", "InfKiB", "0x10", "1e400KiB", "9223372036854775807KiB", "1e30GiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q): got %d, want an error", text, got)
		}
	}
}

func TestCPUIsCoresOrThousandths(t *testing.T) {
	for _, tc := range []struct {
		text string
		want int64
	}{{"0.25", 250}, {"250m", 250}, {"1", 1000}, {"2.5e-1", 250}, {"64", 64000}, {"0.001", 1}, {"-1", -1000}, {"0.1", 100}, {"1.007", 1007}} {
		if got, err := ParseCPU(tc.text); err != nil || got != tc.want {
			t.Errorf("ParseCPU(%q): got %d, %v, want %d", tc.text, got, err, tc.want)
		}
	}
	for _, text := range []string{"", "m", "0.0001", "1.5m", "NaN", "Inf", "1e400", "1e18", "0x1p-2", "two"} {
		if got, err := ParseCPU(text); err == nil {
			t.Errorf("ParseCPU(%q): got %d, want an error", text, got)
		}
	}
}

func TestUnitsSurviveJSON(t *testing.T) {
	type all struct {
		D Duration
		S Size
		C CPU
	}
	for _, tc := range []struct {
		value all
		want  string
	}{
		{all{Duration(5 * time.Minute), 128 << 20, 250}, `{"D":"5m","S":"128MiB","C":0.25}`},
		{all{Duration(24 * time.Hour), 1000, 1000}, `{"D":"24h","S":"1000B","C":1}`},
		{all{Duration(90 * time.Second), 0, 1}, `{"D":"1m30s","S":"0B","C":0.001}`},
		{all{Duration(1500 * time.Millisecond), 1536, 64000}, `{"D":"1.5s","S":"1536B","C":64}`},
	} {
		b, err := json.Marshal(tc.value)
		if err != nil || string(b) != tc.want {
			t.Errorf("got %s, %v, want %s", b, err, tc.want)
		}
		var back all
		if err := json.Unmarshal(b, &back); err != nil || back != tc.value {
			t.Errorf("%s: got back %+v, %v, want %+v", b, back, err, tc.value)
		}
	}
	var lenient all
	if err := json.Unmarshal([]byte(`{"S":1024,"C":"250m"}`), &lenient); err != nil || lenient.S != 1024 || lenient.C != 250 {
		t.Errorf("got %+v, %v, want a number of bytes and thousandths taken", lenient, err)
	}
	for _, text := range []string{`{"D":5}`, `{"D":"5"}`, `{"S":"x"}`, `{"C":"x"}`, `{"S":true}`} {
		if err := json.Unmarshal([]byte(text), &lenient); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
}

// FuzzSize holds that whatever is read is given back as the same number.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"128MiB", "1.5GiB", "-7", "1e3KB", "", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(Size(n).String()); err != nil || again != n {
			t.Errorf("ParseSize(%q) = %d, and back %d, %v", text, n, again, err)
		}
	})
}
