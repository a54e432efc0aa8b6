package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ecs/internal/initwire"
)

func TestRefusedOrders(t *testing.T) {
	with := func(o initwire.Order, change func(*initwire.Order)) initwire.Order {
		change(&o)
		return o
	}
	asApp := func(o *initwire.Order) { o.User = "app" }
	for name, c := range map[string]struct {
		order initwire.Order
		want  initwire.FailKind
		errno int
	}{
		"nothing":             {order(), initwire.NoCommand, 0},
		"empty":               {order(""), initwire.NoCommand, 0},
		"not in PATH":         {order("nosuch"), initwire.NoCommand, int(unix.ENOENT)},
		"no such path":        {order("/no/such"), initwire.NoCommand, int(unix.ENOENT)},
		"no interpreter":      {order("orphan"), initwire.NoCommand, int(unix.ENOENT)},
		"a directory":         {order("/tmp"), initwire.NotExecutable, int(unix.EISDIR)},
		"no program":          {order("text"), initwire.NotExecutable, int(unix.ENOEXEC)},
		"mode":                {order("/bin/secret"), initwire.NotExecutable, int(unix.EACCES)},
		"mode in PATH":        {with(order("secret"), asApp), initwire.NotExecutable, int(unix.EACCES)},
		"long command":        {order(strings.Repeat("\x7f", 60_000)), initwire.NoCommand, int(unix.ENOENT)},
		"long argument":       {order("echo", strings.Repeat("x", 200_000)), initwire.BadArg, int(unix.E2BIG)},
		"user":                {with(order("true"), func(o *initwire.Order) { o.User = "nobody" }), initwire.BadUser, 0},
		"group":               {with(order("true"), func(o *initwire.Order) { o.User = "app:none" }), initwire.BadUser, 0},
		"reserved uid":        {with(order("true"), func(o *initwire.Order) { o.User = "2147483000" }), initwire.BadUser, 0},
		"reserved gid":        {with(order("true"), func(o *initwire.Order) { o.User = "0:2147483000" }), initwire.BadUser, 0},
		"reserved by name":    {with(order("true"), func(o *initwire.Order) { o.User = "hide" }), initwire.BadUser, 0},
		"reserved further":    {with(order("true"), func(o *initwire.Order) { o.Groups = []string{"2147483000"} }), initwire.BadUser, 0},
		"uid too large":       {with(order("true"), func(o *initwire.Order) { o.User = "2147483648" }), initwire.BadUser, 0},
		"uid below 0":         {with(order("true"), func(o *initwire.Order) { o.User = "-1" }), initwire.BadUser, 0},
		"relative workdir":    {with(order("true"), func(o *initwire.Order) { o.Workdir = "tmp" }), initwire.BadWorkdir, 0},
		"workdir is a file":   {with(order("true"), func(o *initwire.Order) { o.Workdir = "/etc/passwd" }), initwire.BadWorkdir, int(unix.ENOTDIR)},
		"workdir in a file":   {with(order("true"), func(o *initwire.Order) { o.Workdir = "/etc/passwd/x" }), initwire.BadWorkdir, int(unix.ENOTDIR)},
		"file over directory": {with(order("true"), func(o *initwire.Order) { o.Files = []initwire.File{{Path: "/etc"}} }), initwire.BadFile, int(unix.EISDIR)},
		"file in /.ecs":       {with(order("true"), func(o *initwire.Order) { o.Files = []initwire.File{{Path: "/.ecs/x"}} }), initwire.BadFile, int(unix.EROFS)},
		"rlimit":              {with(order("true"), func(o *initwire.Order) { o.Rlimits = []initwire.Rlimit{{Resource: 99}} }), initwire.BadLimit, int(unix.EINVAL)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := run(t, c.order)
			if s.failed == nil || s.started != nil || s.exit != nil {
				t.Fatalf("got %+v, started %v, want %s", s.exit, s.started, c.want)
			}
			if s.failed.Reason != c.want || s.failed.Errno != c.errno || s.failed.Text == "" {
				t.Errorf("got %+v, want %s and %d", *s.failed, c.want, c.errno)
			}
			t.Log(s.failed.Text)
		})
	}
}

// TestOrders checks what programs see of their orders.
func TestOrders(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*initwire.Order)
		script string
		want   string
	}{
		"root":            {func(o *initwire.Order) {}, "id -u; id -G; echo $HOME $PATH", "0\n0 50\n/root " + defaultPath + "\n"},
		"name":            {func(o *initwire.Order) { o.User = "app" }, "id -u; id -G; echo $HOME", "1000\n100 29 44\n/home/app\n"},
		"number":          {func(o *initwire.Order) { o.User = "1001" }, "id -u; id -G; echo $HOME", "1001\n101 29\n/home/last\n"},
		"unknown":         {func(o *initwire.Order) { o.User = "4242" }, "id -u; id -G; echo $HOME", "4242\n0\n/\n"},
		"name:group":      {func(o *initwire.Order) { o.User = "app:staff" }, "id -u; id -G", "1000\n50\n"},
		"uid:gid":         {func(o *initwire.Order) { o.User = "7:8" }, "id -u; id -G", "7\n8\n"},
		"further groups":  {func(o *initwire.Order) { o.User, o.Groups = "7", []string{"video", "99"} }, "id -u; id -G", "7\n0 44 99\n"},
		"own HOME":        {func(o *initwire.Order) { o.Env = []string{"HOME=/x", "A=b c"} }, "echo $HOME $A", "/x b c\n"},
		"workdir":         {func(o *initwire.Order) { o.Workdir = "/tmp" }, "pwd", "/tmp\n"},
		"workdir of root": {func(o *initwire.Order) { o.Workdir, o.User = "/srv/deep", "app" }, "pwd; busybox stat -c %a:%u .", "/srv/deep\n755:0\n"},
		"umask":           {func(o *initwire.Order) { o.Umask = 0o027 }, "umask", "0027\n"},
		"oom":             {func(o *initwire.Order) { o.OOMScoreAdj = 100 }, "cat /proc/self/oom_score_adj", "100\n"},
		"rlimit": {func(o *initwire.Order) {
			o.Rlimits = []initwire.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 50, Hard: 60}}
		}, "ulimit -n; ulimit -Hn", "50\n60\n"},
		"file": {func(o *initwire.Order) {
			o.Files = []initwire.File{{Path: "/a/b", Mode: 0o640, Content: []byte("text")}}
		}, "cat /a/b; busybox stat -c ' %a:%u:%g' /a/b", "text 640:0:0\n"},
		"file of the user": {func(o *initwire.Order) {
			o.User, o.Files = "app", []initwire.File{{Path: "/tmp/f", Mode: 0o600, Content: []byte("x")}}
		}, "cat /tmp/f; busybox stat -c ' %a:%u:%g' /tmp/f", "x 600:1000:100\n"},
		"file beyond user": {func(o *initwire.Order) {
			o.User, o.Files = "app", []initwire.File{{Path: "/etc/f", Mode: 0o600, Content: []byte("x")}}
		}, "cat /etc/f; busybox stat -c ' %a:%u:%g' /etc/f", "x 660:0:100\n"},
		"file in workdir": {func(o *initwire.Order) { o.Workdir, o.Files = "/w", []initwire.File{{Path: "f", Content: []byte("x")}} },
			"cat /w/f", "x"},
		"stderr of the user": {func(o *initwire.Order) { o.User = "app" }, "echo x > /dev/stderr && echo ok", "ok\n"},
		"no privileges":      {func(o *initwire.Order) { o.User = "app" }, "grep -E 'Cap|NoNew' /proc/self/status", noCaps},
		"no privileges root": {func(o *initwire.Order) {}, "grep -E 'Cap|NoNew' /proc/self/status", noCaps},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := shell(c.script)
			c.change(&o)
			s := run(t, o)
			if s.failed != nil || s.stdout.String() != c.want {
				t.Errorf("got %q, %q, %+v, want %q", s.stdout.String(), s.stderr.String(), s.failed, c.want)
			}
		})
	}
}

const noCaps = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n" +
	"CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n"

func TestKeptCapabilities(t *testing.T) {
	set, err := initwire.CapSet([]string{"CHOWN", "NET_RAW"})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{
		"":    "CapInh:\t0000000000000000\nCapPrm:\t0000000000002001\nCapEff:\t0000000000002001\nCapBnd:\t0000000000002001\nCapAmb:\t0000000000000000\n",
		"app": "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000002001\nCapAmb:\t0000000000000000\n",
	} {
		o := shell("grep Cap /proc/self/status")
		o.User, o.Caps = user, set
		if s := run(t, o, keeping("CHOWN", "NET_RAW", "SYS_CHROOT")); s.failed != nil || s.stdout.String() != want {
			t.Errorf("user %q: got %q, %+v, want %q", user, s.stdout.String(), s.failed, want)
		}
	}
}
