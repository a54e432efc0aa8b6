package api

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ecs/internal/task"
	"ecs/proto/api"
)

// bad is a request that must create nothing.
type bad struct {
	name, path, body string
	status           int
	code             api.Code
	pointers         string // of the faults, in order
}

// checkBad sends each request and wants status, code and pointers as given and
// no task.
func checkBad(t *testing.T, rows []bad) {
	t.Helper()
	w := newWorld(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w.t = t
			p := w.problem(w.do(http.MethodPost, row.path, row.body), row.status, row.code)
			var pointers []string
			for _, e := range p.Errors {
				pointers = append(pointers, e.Pointer)
				if e.Detail == "" {
					t.Errorf("%s: got no detail", e.Pointer)
				}
			}
			if got := strings.Join(pointers, " "); got != row.pointers {
				t.Errorf("got faults %+v, want %q", p.Errors, row.pointers)
			}
		})
	}
	w.t = t
	if c := w.Snapshot().Counts(); c.Pending != 0 {
		t.Errorf("got %d tasks from bad input, want none", c.Pending)
	}
}

// v2 is a body with an image and the given members.
func v2(members string) string { return `{"image":"busybox:1",` + members + `}` }

func v1(members string) string {
	return `{"docker_image":"busybox:1","cmd":["true"]` + members + `}`
}

func TestBadV2BodiesAreRefused(t *testing.T) {
	const path = "/v2/tasks"
	arg := strings.Repeat("x", task.MaxArgBytes+1)
	deep := strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)
	labels := make([]string, 33)
	for i := range labels {
		labels[i] = fmt.Sprintf(`"l%d":""`, i)
	}
	row := func(name, members string, pointers string) bad {
		return bad{name, path, v2(members), 400, api.CodeInvalidTask, pointers}
	}
	many := strings.TrimSuffix(strings.Repeat(`{"path":"/a","content":""},`, task.MaxFiles+1), ",")
	checkBad(t, []bad{
		row("stdin a number", `"stdin":1`, "/stdin"),
		row("stdin without data", `"stdin":{"encoding":"utf-8"}`, "/stdin/data"),
		row("stdin in a strange encoding", `"stdin":{"encoding":"latin-1","data":"x"}`, "/stdin/encoding"),
		row("stdin that is no base64", `"stdin":{"encoding":"base64","data":"x"}`, "/stdin/data"),
		row("stdin streamed by its encoding", `"stdin":{"encoding":"stream"}`, "/stdin/data"),
		row("stdin with more members", `"stdin":{"data":"x","other":1}`, "/stdin/other"),
		row("stdin given and open", `"stdin":"x","open_stdin":true`, "/stdin"),
		row("stdin given for a terminal", `"stdin":"x","tty":true`, "/stdin"),
		row("open_stdin in words", `"open_stdin":"yes"`, "/open_stdin"),
		row("tty a number", `"tty":1`, "/tty"),
		row("files no list", `"files":{}`, "/files"),
		row("file no object", `"files":["/a"]`, "/files/0"),
		row("file of nothing", `"files":[{}]`, "/files/0/path /files/0/content"),
		row("relative file", `"files":[{"path":"a","content":""}]`, "/files/0/path"),
		row("directory", `"files":[{"path":"/a/","content":""}]`, "/files/0/path"),
		row("file beside the root", `"files":[{"path":"/a/../../b","content":""}]`, "/files/0/path"),
		row("file in proc", `"files":[{"path":"/proc/self/mem","content":""}]`, "/files/0/path"),
		row("file in init's directory", `"files":[{"path":"/.ecs/init","content":""}]`, "/files/0/path"),
		row("file name with NUL", `"files":[{"path":"/a\u0000","content":""}]`, "/files/0/path"),
		row("file twice", `"files":[{"path":"/a","content":""},{"path":"/a","content":""}]`, "/files/1/path"),
		row("file in a file", `"files":[{"path":"/a","content":""},{"path":"/a/b","content":""}]`, "/files/1/path"),
		row("mode a number", `"files":[{"path":"/a","content":"","mode":420}]`, "/files/0/mode"),
		row("mode in decimal", `"files":[{"path":"/a","content":"","mode":"0688"}]`, "/files/0/mode"),
		row("setuid", `"files":[{"path":"/a","content":"","mode":"4755"}]`, "/files/0/mode"),
		row("file content that is no base64", `"files":[{"path":"/a","content":{"encoding":"base64","data":"="}}]`, "/files/0/content/data"),
		row("owner of a file", `"files":[{"path":"/a","content":"","owner":"me"}]`, "/files/0/owner"),
		row("too many files", `"files":[`+many+`]`, "/files"),
		{"no image", path, `{}`, 400, api.CodeInvalidTask, "/image"},
		{"image null", path, `{"image":null}`, 400, api.CodeInvalidTask, "/image"},
		{"image a number", path, `{"image":6}`, 400, api.CodeInvalidTask, "/image"},
		{"image id", path, `{"image":"6"}`, 400, api.CodeImageRef, "/image"},
		{"image id of more digits", path, `{"image":"69f0"}`, 400, api.CodeImageRef, "/image"},
		{"image hash", path, `{"image":"sha256:69f0"}`, 400, api.CodeImageRef, "/image"},
		{"upper case image", path, `{"image":"Busybox"}`, 400, api.CodeImageRef, "/image"},
		{"image with spaces", path, `{"image":"busy box"}`, 400, api.CodeImageRef, "/image"},
		row("empty command", `"command":[]`, "/command"),
		row("empty word", `"command":[""]`, "/command/0"),
		row("command a string", `"command":"true"`, "/command"),
		row("a number among the words", `"command":["a",1]`, "/command/1"),
		row("empty entrypoint word", `"entrypoint":[""]`, "/entrypoint/0"),
		row("NUL in an argument", `"command":["a","b\u0000"]`, "/command/1"),
		row("NUL in a variable", `"env":["A=\u0000"]`, "/env/0"),
		{"argument too long", path, v2(`"command":["a","` + arg + `"]`), 413, api.CodeTooLarge, "/command/1"},
		{"variable too long", path, v2(`"env":["A=` + arg + `"]`), 413, api.CodeTooLarge, "/env/0"},
		row("variable without a name", `"env":["=x"]`, "/env/0"),
		row("variable without a value", `"env":["A=1","x"]`, "/env/1"),
		row("secret without a name", `"secret_env":["=x"]`, "/secret_env/0"),
		row("relative workdir", `"workdir":"a/b"`, "/workdir"),
		row("workdir with ..", `"workdir":"/a/../../b"`, "/workdir"),
		row("workdir in proc", `"workdir":"/proc/self/fd/7"`, "/workdir"),
		row("workdir in sys", `"workdir":"//sys"`, "/workdir"),
		row("negative user", `"user":"-1"`, "/user"),
		row("user beyond 31 bits", `"user":"2147483648"`, "/user"),
		row("group beyond 31 bits", `"user":"0:99999999999999999999"`, "/user"),
		row("user with a newline", `"user":"a\nb"`, "/user"),
		row("user with three parts", `"user":"a:b:c"`, "/user"),
		row("label with a newline in its name", `"labels":{"a\nb":"x"}`, "/labels/a\nb"),
		row("label with a newline in its value", `"labels":{"a":"x\ny"}`, "/labels/a"),
		row("label name of 64", `"labels":{"`+strings.Repeat("a", 64)+`":"x"}`, "/labels/"+strings.Repeat("a", 64)),
		row("label value of 257", `"labels":{"a":"`+strings.Repeat("x", 257)+`"}`, "/labels/a"),
		row("33 labels", `"labels":{`+strings.Join(labels, ",")+`}`, "/labels"),
		row("label twice", `"labels":{"a":"1","a":"2"}`, "/labels/a"),
		row("hostname", `"hostname":"x"`, "/hostname"),
		row("little memory", `"resources":{"memory":"5MiB"}`, "/resources/memory"),
		row("negative memory", `"resources":{"memory":-1}`, "/resources/memory"),
		row("memory like no size", `"resources":{"memory":"500m"}`, "/resources/memory"),
		row("negative cpu", `"resources":{"cpu":-1}`, "/resources/cpu"),
		row("no cpu", `"resources":{"cpu":0}`, "/resources/cpu"),
		row("limit below cpu", `"resources":{"cpu":2,"cpu_limit":1}`, "/resources/cpu_limit"),
		row("no pids", `"resources":{"pids":0}`, "/resources/pids"),
		row("unlimited pids", `"resources":{"pids":-1}`, "/resources/pids"),
		row("too many pids", `"resources":{"pids":4097}`, "/resources/pids"),
		row("half a pid", `"resources":{"pids":1.5}`, "/resources/pids"),
		row("pids in words", `"resources":{"pids":"5"}`, "/resources/pids"),
		row("shm", `"resources":{"shm":"1PiB"}`, "/resources/shm"),
		row("binds", `"binds":["/:/host"]`, "/binds"),
		row("privileged", `"privileged":true`, "/privileged"),
		row("devices", `"devices":[]`, "/devices"),
		row("pid namespace", `"pid":"host"`, "/pid"),
		row("host network", `"network":"host"`, "/network"),
		row("a container's network", `"network":"container:x"`, "/network"),
		row("forbidden capability", `"cap_add":["CHOWN","SYS_ADMIN"]`, "/cap_add/1"),
		row("all capabilities", `"cap_add":["ALL"]`, "/cap_add/0"),
		row("unknown member", `"comand":["x"]`, "/comand"),
		{"member in other case", path, `{"Image":"busybox:1"}`, 400, api.CodeInvalidTask, "/image /Image"},
		row("member twice", `"image":"busybox:2"`, "/image"),
		{"more behind the body", path, v2(`"env":[]`) + "{}", 400, api.CodeBadRequest, ""},
		{"invalid UTF-8", path, v2("\"workdir\":\"/\xff\""), 400, api.CodeBadRequest, "/workdir"},
		{"too deep", path, v2(`"labels":` + deep), 400, api.CodeBadRequest, "/labels" + strings.Repeat("/a", 31)},
		{"no JSON", path, `image=busybox`, 400, api.CodeBadRequest, ""},
		{"cut JSON", path, `{"image":"busy`, 400, api.CodeBadRequest, "/image"},
		{"no body", path, ``, 400, api.CodeBadRequest, ""},
		{"not an object", path, `["busybox"]`, 400, api.CodeInvalidTask, " /image"},
		{"body beyond 256 KiB", path, v2(`"command":["` + strings.Repeat("x", api.MaxBodyV2) + `"]`), 413, api.CodeTooLarge, ""},
		row("no time to run", `"timeouts":{"run":"0s"}`, "/timeouts/run"),
		row("negative time", `"timeouts":{"queue":"-1s"}`, "/timeouts/queue"),
		row("too much time", `"timeouts":{"pull":"169h"}`, "/timeouts/pull"),
		row("time as a number", `"timeouts":{"total":5}`, "/timeouts/total"),
		row("NaN time", `"timeouts":{"run":"NaN"}`, "/timeouts/run"),
		row("endless time", `"timeouts":{"run":"1e400s"}`, "/timeouts/run"),
		row("endless number", `"resources":{"cpu":1e400}`, "/resources/cpu"),
		row("lease too long", `"lease":"11m"`, "/lease"),
		row("lease too short", `"lease":"1s"`, "/lease"),
		row("too many runs", `"retry":{"program":11}`, "/retry/program"),
		row("run again at most once", `"retry":{"program":1},"delivery":"at_most_once"`, "/retry/program"),
		row("run again with open stdin", `"retry":{"program":1},"open_stdin":true`, "/retry/program"),
		row("codes and pause of no retry", `"retry":{"on_exit_codes":[3],"backoff":"1s"}`, "/retry/on_exit_codes /retry/backoff"),
		row("no codes", `"retry":{"program":1,"on_exit_codes":[]}`, "/retry/on_exit_codes"),
		row("wrong codes", `"retry":{"program":1,"on_exit_codes":[3,0,"4",256]}`, "/retry/on_exit_codes/1 /retry/on_exit_codes/2 /retry/on_exit_codes/3"),
		row("a pause of no time", `"retry":{"program":1,"backoff":"0s"}`, "/retry/backoff"),
		row("too long a pause", `"retry":{"program":1,"backoff":"2h"}`, "/retry/backoff"),
		row("negative retries", `"retry":{"infrastructure":-1}`, "/retry/infrastructure"),
		row("delivery", `"delivery":"exactly_once"`, "/delivery"),
		row("zones", `"placement":{"zones":["a","a","b c"]}`, "/placement/zones/1 /placement/zones/2"),
		row("spread", `"placement":{"spread":"random"}`, "/placement/spread"),
		row("credentials without a password", `"registry_auth":{"username":"u"}`, "/registry_auth/password"),
		row("no output", `"max_output":0`, "/max_output"),
		row("too much output", `"max_output":"65MiB"`, "/max_output"),
		row("too much inline", `"max_inline":"65MiB"`, "/max_inline"),
		row("retention", `"retention":"200h"`, "/retention"),
		{"every fault at once", path, `{"image":"UP","command":[""],"env":["=x"],"workdir":"rel","nonsense":1,"resources":{"pids":0},"timeouts":{"run":"x"}}`,
			400, api.CodeInvalidTask, "/image /command/0 /env/0 /workdir /resources/pids /timeouts/run /nonsense"},
		{"not built yet", path, v2(`"webhook":"x","priority":1,"resources":{"disk":"1GiB"},"placement":{"constraints":[]}`),
			501, api.CodeNotYet, "/webhook /priority /resources/disk /placement/constraints"},
		{"not built and wrong", path, v2(`"webhook":"/x","workdir":"x"`), 400, api.CodeInvalidTask, "/webhook /workdir"},
		{"outputs of another kind", path, v2(`"outputs":"/x"`), 400, api.CodeInvalidTask, "/outputs"},
		{"output that is no path", path, v2(`"outputs":[1,"x","","./x","/"]`), 400, api.CodeInvalidTask, "/outputs/0 /outputs/1 /outputs/2 /outputs/3 /outputs/4"},
		{"output that is not clean", path, v2(`"outputs":["/a/../b","/..","/a//b","/a/","/a/./b"]`), 400, api.CodeInvalidTask, "/outputs/0 /outputs/1 /outputs/2 /outputs/3 /outputs/4"},
		{"outputs of the kernel's", path, v2(`"outputs":["/proc","/sys/x","/dev/shm/x","/.ecs/init","/processes","/device"]`), 400, api.CodeInvalidTask, "/outputs/0 /outputs/1 /outputs/2 /outputs/3"},
		{"outputs in each other", path, v2(`"outputs":["/a/b","/a/b","/a","/a/b/c","/a/bc"]`), 400, api.CodeInvalidTask, "/outputs/1 /outputs/2 /outputs/3 /outputs/4"},
		{"NUL in an output", path, v2(`"outputs":["/a\u0000b"]`), 400, api.CodeInvalidTask, "/outputs/0"},
		{"output with a long path", path, v2(`"outputs":["/` + strings.Repeat("x", 1023) + `","/` + strings.Repeat("y", 1024) + `"]`), 400, api.CodeInvalidTask, "/outputs/1"},
		{"too many outputs", path, v2(`"outputs":["/0"` + strings.Repeat(`,"/x"`, 32) + `]`), 400, api.CodeInvalidTask, "/outputs"},
		{"misspelt wait", path + "?wiat=5s", `{"image":"busybox:1"}`, 400, api.CodeBadRequest, ""},
		{"wait for nothing", path + "?wait=0s", `{"image":"busybox:1"}`, 400, api.CodeBadRequest, ""},
		{"wait backwards", path + "?wait=-1s", `{"image":"busybox:1"}`, 400, api.CodeBadRequest, ""},
		{"wait for ever", path + "?wait=1000h", `{"image":"busybox:1"}`, 400, api.CodeBadRequest, ""},
		{"two waits", path + "?wait=1s&wait=2s", `{"image":"busybox:1"}`, 400, api.CodeBadRequest, ""},
		{"bad query", path + "?wait=%zz", `{"image":"busybox:1"}`, 400, api.CodeBadRequest, ""},
	})
}

func TestBadV1BodiesAreRefused(t *testing.T) {
	const v11, v10 = "/v1.1/tasks", "/v1.0/tasks"
	checkBad(t, []bad{
		{"no tag", v11, `{"docker_image":"busybox","cmd":["x"]}`, 400, api.CodeImageRef, "/docker_image"},
		{"image id", v11, `{"docker_image":"6","cmd":["x"]}`, 400, api.CodeImageRef, "/docker_image"},
		{"no image", v11, `{"cmd":["x"]}`, 400, api.CodeInvalidTask, "/docker_image"},
		{"no cmd", v11, `{"docker_image":"busybox:1"}`, 400, api.CodeInvalidTask, "/cmd"},
		{"null cmd", v11, `{"docker_image":"busybox:1","cmd":null}`, 400, api.CodeInvalidTask, "/cmd"},
		{"empty cmd", v11, `{"docker_image":"busybox:1","cmd":[]}`, 400, api.CodeInvalidTask, "/cmd"},
		{"empty word", v11, `{"docker_image":"busybox:1","cmd":[""]}`, 400, api.CodeInvalidTask, "/cmd/0"},
		{"a number in cmd", v11, `{"docker_image":"busybox:1","cmd":[1]}`, 400, api.CodeInvalidTask, "/cmd/0"},
		{"cmd a string", v11, `{"docker_image":"busybox:1","cmd":"x"}`, 400, api.CodeInvalidTask, "/cmd"},
		{"unknown member", v11, v1(`,"tag":"1"`), 400, api.CodeInvalidTask, "/tag"},
		{"credentials", v11, v1(`,"creds":{"username":"","email":"e","other":1}`), 400, api.CodeInvalidTask, "/creds/username /creds/password /creds/other"},
		{"bad JSON", v11, `{"docker_image"`, 400, api.CodeBadRequest, "/docker_image"},
		{"body beyond 5 KiB", v11, `{"docker_image":"busybox:1","cmd":["` + strings.Repeat("x", 6000) + `"]}`, 413, api.CodeTooLarge, ""},
		{"v1.0 without its tag", v10, `{"docker_image":"busybox","cmd":["x"]}`, 400, api.CodeInvalidTask, "/tag"},
		{"v1.0 with two tags", v10, `{"docker_image":"busybox:1","tag":"1","cmd":["x"]}`, 400, api.CodeImageRef, "/docker_image"},
		{"v1.0 with a bad tag", v10, `{"docker_image":"busybox","tag":"a b","cmd":["x"]}`, 400, api.CodeImageRef, "/tag"},
		{"v1.0 with an empty tag", v10, `{"docker_image":"busybox","tag":"","cmd":["x"]}`, 400, api.CodeImageRef, "/tag"},
		{"v1.0 with a digest for a tag", v10, `{"docker_image":"busybox","tag":"1@` + digest + `","cmd":["x"]}`, 400, api.CodeImageRef, "/tag"},
		{"v1.0 with a hash", v10, `{"docker_image":"sha256","tag":"69f0","cmd":["x"]}`, 400, api.CodeImageRef, "/docker_image"},
	})
}

func TestGoodBodiesAreUnderstood(t *testing.T) {
	w := newWorld(t)
	id := w.submitted(`{"image":"localhost:5000/a/b","command":["sh","-c",""],"entrypoint":[],"env":["A=1\n2","B="],"secret_env":["TOKEN=hush"],
		"workdir":"/w","user":"1000:staff","resources":{"cpu":"2500m","memory":"1GiB","pids":10},"cap_add":["cap_kill","NET_RAW","KILL"],
		"network":"egress","timeouts":{"queue":"1m","pull":"2m","run":"3m","total":"4m"},"retry":{"infrastructure":0},"delivery":"at_most_once",
		"placement":{"zones":["a"],"spread":"pack"},"registry_auth":{"username":"u","password":"p"},"max_output":"2MiB","labels":{"a/b":"c"},"retention":"1h","stdin":null}`)
	got := w.Snapshot().Task(id)
	s := got.Spec
	if s.Image != "localhost:5000/a/b:latest" || len(s.Command) != 3 || s.Entrypoint == nil || s.Workdir != "/w" || s.User != "1000:staff" ||
		s.Resources != (task.Resources{MilliCPU: 2500, MilliCPULimit: 2500, Memory: 1 << 30, Pids: 10}) || strings.Join(s.CapAdd, " ") != "KILL NET_RAW" ||
		s.Network != task.NetworkEgress || s.Timeouts != (task.Timeouts{Queue: time.Minute, Pull: 2 * time.Minute, Run: 3 * time.Minute, Total: 4 * time.Minute}) ||
		s.InfrastructureRetries != 0 || s.Delivery != task.AtMostOnce || s.Lease != task.AtMostOnceLease || s.Placement.Zones[0] != "a" ||
		s.Placement.Spread != task.BinPack || s.MaxOutput != 2<<20 || s.Labels["a/b"] != "c" || s.Retention != time.Hour || !s.HasAuth || s.SecretEnvNames[0] != "TOKEN" {
		t.Errorf("got spec %+v", s)
	}
	if sealed := string(s.Secrets); !strings.HasPrefix(sealed, "sealed for "+string(id)+":") {
		t.Errorf("got secrets %q, want them sealed to the task", sealed)
	}
	answer := string(w.do(http.MethodGet, "/v2/tasks/"+string(id), "").body)
	if strings.Contains(answer, "hush") || strings.Contains(answer, `"p"`) || !strings.Contains(answer, `"secret_env":["TOKEN"]`) {
		t.Errorf("got %s, want names of secrets and no secret", answer)
	}

	id = w.submitted(`{"image":"busybox:1","retry":{"program":2,"on_exit_codes":[7,137,7,1],"backoff":"5s"}}`)
	if s = w.Snapshot().Task(id).Spec; s.InfrastructureRetries != 3 || s.ProgramRetries != 2 || !slices.Equal(s.RetryExitCodes, []int{1, 7, 137}) || s.RetryBackoff != 5*time.Second {
		t.Errorf("got %d, %d, %v, %s, want the retries asked for", s.InfrastructureRetries, s.ProgramRetries, s.RetryExitCodes, s.RetryBackoff)
	}
	if answer := string(w.do(http.MethodGet, "/v2/tasks/"+string(id), "").body); !strings.Contains(answer, `"retry":{"infrastructure":3,"program":2,"on_exit_codes":[1,7,137],"backoff":"5s"}`) {
		t.Errorf("got %s, want the retries as accepted", answer)
	}

	id = w.submitted(`{"image":"busybox:1","stdin":"typed\u0000","files":[{"path":"/a b","mode":"0755","content":{"encoding":"base64","data":"/wA="}},{"path":"/c","content":"text"}]}`)
	s = w.Snapshot().Task(id).Spec
	wantFiles := []task.File{{Path: "/a b", Mode: 0o755, Content: []byte{0xff, 0}, Size: 2}, {Path: "/c", Mode: 0o644, Content: []byte("text"), Size: 4}}
	if string(s.Stdin) != "typed\x00" || s.StdinSize != 6 || !reflect.DeepEqual(s.Files, wantFiles) || s.MaxOutput != task.DefaultMaxOutput || s.Delivery != task.AtLeastOnce {
		t.Errorf("got stdin %q, files %+v", s.Stdin, s.Files)
	}
	shown := w.task(w.do(http.MethodGet, "/v2/tasks/"+string(id), "")).Spec
	if wantShown := []api.SpecFile{{Path: "/a b", Mode: "0755", Bytes: 2}, {Path: "/c", Mode: "0644", Bytes: 4}}; shown.StdinBytes != 6 || !reflect.DeepEqual(shown.Files, wantShown) {
		t.Errorf("got %+v shown, want names and sizes", shown)
	}
	id = w.submitted(`{"image":"busybox:1","open_stdin":true,"tty":true}`)
	if s = w.Snapshot().Task(id).Spec; !s.OpenStdin || !s.TTY || s.MaxOutput != task.AttachedMaxOutput || s.Delivery != task.AtMostOnce {
		t.Errorf("got %+v, want stdin open, a terminal, and their defaults", s)
	}

	id = w.submitted(`{"image":"busybox:1","resources":{"cpu_limit":0.1}}`)
	s = w.Snapshot().Task(id).Spec
	if s.Resources.MilliCPU != 100 || s.InfrastructureRetries != task.DefaultRetries || s.Lease != task.DefaultLease || s.Timeouts.Queue != task.DefaultQueue || s.Network != task.NetworkNone {
		t.Errorf("got defaults %+v", s)
	}
}

func TestArgumentsAreBoundedTogether(t *testing.T) {
	f := new(faults)
	list := make([]string, 20)
	for i := range list {
		list[i] = strings.Repeat("x", 100_000)
	}
	checkTotal(f, list[:10], list[10:])
	if len(f.list) != 1 || f.list[0].Code != task.CodeTooLarge {
		t.Errorf("got %+v, want 2 MB refused", f.list)
	}
}
