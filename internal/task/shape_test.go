package task

import "testing"

// TestShapesDiffer changes one thing at a time that an engine is told, and one
// at a time that only the order says.
func TestShapesDiffer(t *testing.T) {
	base := Spec{Image: "docker.io/library/busybox:1", Command: []string{"echo"}, CapAdd: []string{"CHOWN", "KILL"}}.WithDefaults(V2, true)
	was := base.Shape()
	for name, change := range map[string]func(*Spec){
		"image":            func(s *Spec) { s.Image += "2" },
		"network":          func(s *Spec) { s.Network = NetworkEgress },
		"cpu":              func(s *Spec) { s.Resources.MilliCPU++ },
		"cpu limit":        func(s *Spec) { s.Resources.MilliCPULimit++ },
		"memory":           func(s *Spec) { s.Resources.Memory++ },
		"pids":             func(s *Spec) { s.Resources.Pids++ },
		"capabilities":     func(s *Spec) { s.CapAdd = []string{"CHOWN"} },
		"default caps":     func(s *Spec) { s.DefaultCaps = true },
		"no capability":    func(s *Spec) { s.CapAdd = nil },
		"more than a name": func(s *Spec) { s.CapAdd = []string{"CHOWN", "KILL", "SETUID"} },
	} {
		s := base
		if change(&s); s.Shape() == was || s.Shape().Hash() == was.Hash() {
			t.Errorf("%s: the shape is the same", name)
		}
	}
	for name, change := range map[string]func(*Spec){
		"command":     func(s *Spec) { s.Command = []string{"date"} },
		"env":         func(s *Spec) { s.Env = []string{"A=1"} },
		"user":        func(s *Spec) { s.User = "nobody" },
		"workdir":     func(s *Spec) { s.Workdir = "/tmp" },
		"files":       func(s *Spec) { s.Files = []File{{Path: "/a"}} },
		"stdin":       func(s *Spec) { s.Stdin = []byte("x") },
		"tty":         func(s *Spec) { s.TTY = true },
		"run limit":   func(s *Spec) { s.Timeouts.Run++ },
		"lease":       func(s *Spec) { s.Lease++ },
		"caps' order": func(s *Spec) { s.CapAdd = []string{"KILL", "CHOWN"} },
	} {
		s := base
		if change(&s); s.Shape() != was || s.Shape().Hash() != was.Hash() {
			t.Errorf("%s: the shape differs", name)
		}
	}
	if got := was.Caps(); len(got) != 2 || got[0] != "CHOWN" || got[1] != "KILL" {
		t.Errorf("capabilities: got %v", got)
	}
}
