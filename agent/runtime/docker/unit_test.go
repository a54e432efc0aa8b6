package docker

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/system"

	"ecs/internal/task"
)

func TestLimitsAreNeverLeftOpen(t *testing.T) {
	two := system.Info{NCPU: 2}
	l := limits(task.Resources{}, two)
	if l.Memory != task.DefaultMemory || l.MemorySwap != l.Memory || l.NanoCPUs != 1e9 || l.CPUShares != 256 ||
		l.PidsLimit == nil || *l.PidsLimit != task.DefaultPids+16 {
		t.Errorf("of nothing: got %+v, want the defaults", l)
	}
	l = limits(task.Resources{MilliCPU: 1, MilliCPULimit: 8000, Memory: 6 << 20, Pids: 1}, two)
	if l.NanoCPUs != 2e9 {
		t.Errorf("ceiling above the machine: got %d, want what it has", l.NanoCPUs)
	}
	if l.CPUShares != 2 {
		t.Errorf("least weight: got %d, want 2", l.CPUShares)
	}
	if l := limits(task.Resources{MilliCPU: 3000}, system.Info{NCPU: 4}); l.NanoCPUs != 3e9 || *l.PidsLimit != task.DefaultPids+16 {
		t.Errorf("reservation above the default ceiling: got %+v, want 3 CPUs and %d pids", l, task.DefaultPids+16)
	}
}

func TestTokensSurviveLabels(t *testing.T) {
	r := &Runtime{cfg: Config{Cluster: "c", Node: "n"}}
	want := task.Token{Task: "t1", Attempt: 3, Epoch: 1 << 63}
	if got, ok := tokenOf(r.labels(want)); !ok || got != want {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
	for _, broken := range []string{labelTask, labelAttempt, labelEpoch} {
		labels := r.labels(want)
		labels[broken] = ""
		if got, ok := tokenOf(labels); ok {
			t.Errorf("without %s: got %+v, want none", broken, got)
		}
	}
}

func TestNetworkNames(t *testing.T) {
	for cluster, want := range map[string]string{"dev": "ecs-dev", "0f3a9c1e-77aa": "ecs-0f3a9c1e", "": "ecs-e3b0c442"} {
		if got := networkName(cluster); got != want {
			t.Errorf("%q: got %s, want %s", cluster, got, want)
		}
	}
	for _, cluster := range []string{"My Cluster", "a/b", "ünïcödé", "-rf"} {
		if got := networkName(cluster); !regexp.MustCompile(`^ecs-[0-9a-f]{8}$`).MatchString(got) {
			t.Errorf("%q: got %s, which is no name for an interface", cluster, got)
		}
	}
}

func TestEgressRules(t *testing.T) {
	lan := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	world := egressRules("ecs-x", "x", nil, []netip.Addr{netip.MustParseAddr("10.0.0.2")})
	if n := len(world); n != 3 {
		t.Errorf("a name server out in the world: got %d rules, want 3", n)
	}
	for _, server := range []string{"169.254.169.254", "10.0.0.2"} {
		rules := egressRules("ecs-x", "x", lan, []netip.Addr{netip.MustParseAddr(server), netip.MustParseAddr(server)})
		if n := len(rules); n != 3+1+2 {
			t.Errorf("%s: got %d rules, want 6", server, n)
		}
		rejected := false
		for _, r := range rules {
			words := strings.Join(r.match, " ")
			if !strings.HasPrefix(words, "-i ecs-x ") || !strings.Contains(words, "--comment ecs.cluster=x") {
				t.Errorf("got %q, want it bound to the bridge and marked", words)
			}
			if strings.HasSuffix(words, "RETURN") != r.exception || r.exception && !strings.Contains(words, "-d "+server+"/32") {
				t.Errorf("got %q, want only the name server let through", words)
			}
			rejected = rejected || strings.Contains(words, "-d 10.0.0.0/24") && strings.HasSuffix(words, "REJECT")
		}
		if !rejected {
			t.Errorf("%s: got no rule for the denied network", server)
		}
		// They go in one after the other, each first: what lets through comes last.
		if !rules[len(rules)-1].exception || !rules[len(rules)-2].exception {
			t.Errorf("last: got %v, want the exceptions", rules[len(rules)-2:])
		}
	}
}

func TestExceptionStaysAboveALaterRule(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs the right to change the firewall")
	}
	chain := fmt.Sprintf("ECS-TEST-%d", os.Getpid())
	if _, err := tables(t.Context(), "iptables", "-N", chain); err != nil {
		t.Fatal(err)
	}
	defer exec.Command("iptables", "-w", "5", "-X", chain).Run()
	defer exec.Command("iptables", "-w", "5", "-F", chain).Run()
	first := rule{program: "iptables", chain: chain, match: []string{"-d", "203.0.113.0/26", "-j", "REJECT"}}
	later := rule{program: "iptables", chain: chain, match: []string{"-d", "203.0.113.64/26", "-j", "REJECT"}}
	open := rule{program: "iptables", chain: chain, match: []string{"-d", "203.0.113.65/32", "-j", "RETURN"}, exception: true}
	for _, rules := range [][]rule{{first, open}, {first, later, open}, {first, later, open}} {
		if err := ensureRules(t.Context(), rules); err != nil {
			t.Fatal(err)
		}
		list, err := tables(t.Context(), "iptables", "-S", chain)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(list), "\n")[1:]
		if len(lines) != len(rules) || !strings.HasSuffix(lines[0], "RETURN") {
			t.Errorf("got %q, want %d with the exception first", lines, len(rules))
		}
	}
}

func TestDeniedNetworks(t *testing.T) {
	got, err := deniedNetworks([]string{"10.1.2.3/8", "192.168.0.0/16", "10.0.0.0/8"})
	if err != nil || len(got) != 2 || got[0].String() != "10.0.0.0/8" {
		t.Errorf("got %v, %v; want two networks", got, err)
	}
	if got, err := deniedNetworks([]string{}); err != nil || len(got) != 0 {
		t.Errorf("of none: got %v, %v; want none", got, err)
	}
	for _, wrong := range []string{"10.0.0.0", "fd00::/8", ""} {
		if _, err := deniedNetworks([]string{wrong}); err == nil {
			t.Errorf("%q: got no error", wrong)
		}
	}
}

func TestPrivateSubnets(t *testing.T) {
	addrs := []net.Addr{
		&net.IPNet{IP: net.IPv4(10, 1, 2, 3), Mask: net.CIDRMask(20, 32)},
		&net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.ParseIP("fd00::1"), Mask: net.CIDRMask(64, 128)},
	}
	for _, tt := range []struct {
		name  string
		flags net.Flags
		want  string
	}{
		{"eth0", net.FlagUp, "10.1.0.0/20"},
		{"eth1", 0, ""},
		{"lo", net.FlagUp | net.FlagLoopback, ""},
		{"docker0", net.FlagUp, ""},
		{"br-0f3a", net.FlagUp, ""},
		{"ecs-dev", net.FlagUp, ""},
		{"veth12", net.FlagUp, ""},
	} {
		got := ""
		for _, p := range privateSubnets(net.Interface{Name: tt.name, Flags: tt.flags}, addrs) {
			got += p.String()
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRulesAreFoundByTheirMark(t *testing.T) {
	listing := `-P INPUT ACCEPT
-A INPUT -i ecs-dev -m comment --comment ecs.cluster=dev -j REJECT --reject-with icmp-port-unreachable
-A INPUT -i ecs-dev2 -m comment --comment "ecs.cluster=dev2" -j REJECT --reject-with icmp-port-unreachable
-A INPUT -p tcp -m comment --comment "of somebody else" -j ACCEPT
-A INPUT -m comment --comment
`
	got := rulesMarked(listing, ruleComment("dev"))
	want := strings.Fields("INPUT -i ecs-dev -m comment --comment ecs.cluster=dev -j REJECT --reject-with icmp-port-unreachable")
	if len(got) != 1 || !slices.Equal(got[0], want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := rulesMarked(listing, ruleComment("dev2")); len(got) != 1 || slices.ContainsFunc(got[0], func(w string) bool { return strings.Contains(w, `"`) }) {
		t.Errorf("quoted: got %q, want one without quotes", got)
	}
}

func TestNameServers(t *testing.T) {
	got := nameServers("# x\nnameserver 169.254.169.254\nsearch a b\nnameserver fe80::1%eth0\nnameserver\nnameserver nonsense\n")
	if len(got) != 2 || got[0].String() != "169.254.169.254" {
		t.Errorf("got %v, want two", got)
	}
}
