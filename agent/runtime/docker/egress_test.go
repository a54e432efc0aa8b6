package docker_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"ecs/agent/runtime"
	"ecs/agent/runtime/docker"
	"ecs/internal/task"
	"ecs/test/images"
)

const (
	outside = "198.51.100.2" // an address that stands for the world
	// metadata is among the addresses that are closed off. It is not the
	// metadata server's own, which this machine may need meanwhile.
	metadata = "169.254.77.77"
	// sibling stands for another node in a network that is denied.
	sibling = "203.0.113.77"
	denied  = "203.0.113.64/26"
)

// world makes a network namespace beside the host, with listeners on port 80 of
// the three addresses, so that what tasks reach does not depend on where the test
// runs.
func world(t *testing.T) {
	t.Helper()
	alone(t)
	ns := fmt.Sprintf("ecsworld%d", os.Getpid())
	veth := fmt.Sprintf("ecsw%d", os.Getpid()%100000)
	sh(t, "ip netns add "+ns)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	sh(t, "ip link add "+veth+" type veth peer name eth0 netns "+ns)
	t.Cleanup(func() { exec.Command("ip", "link", "del", veth).Run() })
	sh(t, "ip addr add 198.51.100.1/30 dev "+veth)
	sh(t, "ip link set "+veth+" up")
	sh(t, "ip netns exec "+ns+" ip addr add "+outside+"/30 dev eth0")
	sh(t, "ip netns exec "+ns+" ip addr add "+metadata+"/32 dev eth0")
	sh(t, "ip netns exec "+ns+" ip addr add "+sibling+"/32 dev eth0")
	sh(t, "ip netns exec "+ns+" ip link set eth0 up")
	sh(t, "ip netns exec "+ns+" ip route add default via 198.51.100.1")
	sh(t, "ip route add "+metadata+"/32 via "+outside)
	t.Cleanup(func() { exec.Command("ip", "route", "del", metadata+"/32").Run() })
	sh(t, "ip route add "+sibling+"/32 via "+outside)
	t.Cleanup(func() { exec.Command("ip", "route", "del", sibling+"/32").Run() })
	listener := exec.Command("ip", "netns", "exec", ns, "/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/true")
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Process.Kill(); listener.Wait() })
	for _, addr := range []string{outside, metadata, sibling} {
		reachable(t, addr+":80")
	}
}

// reachable waits until the host itself can connect.
func reachable(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the test's own %s can't be reached: %v", addr, err)
		}
	}
}

// alone keeps other processes out that run the same test, until its end.
func alone(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		l, err := net.Listen("unix", "@ecs-test-world")
		if err == nil {
			t.Cleanup(func() { l.Close() })
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func sh(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// wantNoRights is the rest of a test of networks where there is no right to
// change the firewall: then no network may be offered.
func wantNoRights(t *testing.T, r *docker.Runtime) {
	e, err := r.Probe(t.Context())
	if err != nil || e.Egress || e.EgressWhy == "" {
		t.Errorf("without rights: got %+v, %v; want no egress and why", e, err)
	}
}

func rules(t *testing.T, cluster string) int {
	t.Helper()
	out, err := exec.Command("iptables-save").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), "ecs.cluster="+cluster+" ") + strings.Count(string(out), "ecs.cluster="+cluster+"\"")
}

func networks(t *testing.T, c *client.Client, cluster string) int {
	t.Helper()
	list, err := c.NetworkList(t.Context(), network.ListOptions{Filters: clusterLabel(cluster)})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestEgressReachesTheWorldAndNothingOfOurs(t *testing.T) {
	c := engine(t)
	cluster := newCluster(t, c)
	r := newRuntime(t, c, cluster, "n1", true)
	if os.Geteuid() != 0 {
		wantNoRights(t, r)
		return
	}
	world(t)
	if e, err := r.Probe(t.Context()); err != nil || !e.Egress {
		t.Fatalf("probe: got %+v, %v; want egress", e, err)
	}
	host, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	port := host.Addr().(*net.TCPAddr).Port
	reachable(t, fmt.Sprintf("127.0.0.1:%d", port))

	neighbour := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "listen", ":80"}, Network: task.NetworkEgress,
		CapAdd: []string{"NET_BIND_SERVICE"}})
	listening := started(t, r, neighbour)
	at := inspect(t, c, neighbour.Token).NetworkSettings.Networks
	var ip, gateway string
	for _, n := range at {
		ip, gateway = n.IPAddress, n.Gateway
	}

	connect := func(net task.Network, addr string) string {
		return runOrder(t, r, orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "connect", addr}, Network: net})).stdout
	}
	for _, tt := range []struct {
		name    string
		network task.Network
		addr    string
		want    string
	}{
		{"the world", task.NetworkEgress, outside + ":80", "connected"},
		{"the metadata server", task.NetworkEgress, metadata + ":80", "refused"},
		{"another node", task.NetworkEgress, sibling + ":80", "refused"},
		{"the host by its bridge", task.NetworkEgress, fmt.Sprintf("%s:%d", gateway, port), "refused"},
		{"the host by another address", task.NetworkEgress, fmt.Sprintf("198.51.100.1:%d", port), "refused"},
		{"another task", task.NetworkEgress, ip + ":80", "refused"},
		{"the world without network", task.NetworkNone, outside + ":80", "refused"},
	} {
		if got := connect(tt.network, tt.addr); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, want %s", tt.name, got, tt.want)
		}
	}
	// A program can't undo it.
	inside := runOrder(t, r, orderOf(imageOf(t, c, images.Busybox), task.Spec{Network: task.NetworkEgress,
		Command: []string{"sh", "-c", "ip link set eth0 down; ip addr; cat /proc/net/if_inet6"}}))
	if !strings.Contains(inside.stderr, "not permitted") || strings.Contains(inside.stdout, "inet6") {
		t.Errorf("inside: got %q %q, want no right to change the network, and no IPv6", inside.stdout, inside.stderr)
	}
	if err := listening.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEgressIsOfferedOnlyWhenAsked(t *testing.T) {
	c := engine(t)
	r := newRuntime(t, c, newCluster(t, c), "n1", false)
	if e, err := r.Probe(t.Context()); err != nil || e.Egress || e.EgressWhy == "" {
		t.Errorf("got %+v, %v; want no egress and why", e, err)
	}
	res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "id"}, Network: task.NetworkEgress}))
	if res.err == nil {
		t.Error("a task that wants network: got none, want an error")
	}
}

func TestAgentsMakeOneNetworkBetweenThem(t *testing.T) {
	c := engine(t)
	cluster := newCluster(t, c)
	if os.Geteuid() != 0 {
		wantNoRights(t, newRuntime(t, c, cluster, "n", true))
		return
	}
	agents := make([]*docker.Runtime, 4)
	var all sync.WaitGroup
	for i := range agents {
		agents[i] = newRuntime(t, c, cluster, fmt.Sprint("n", i), true)
		all.Go(func() {
			if e, err := agents[i].Probe(t.Context()); err != nil || !e.Egress {
				t.Errorf("agent %d: got %+v, %v; want egress", i, e, err)
			}
		})
	}
	all.Wait()
	if n := networks(t, c, cluster); n != 1 {
		t.Errorf("networks: got %d, want 1", n)
	}
	if n := rules(t, cluster); n != 3 {
		t.Errorf("rules: got %d, want 3: the host, the metadata server and what is denied", n)
	}
	// An agent that leaves takes nothing from the others.
	o := orderOf(imageOf(t, c, images.Prog), task.Spec{Command: []string{"prog", "id"}, Network: task.NetworkEgress})
	o.Output = runtime.Sink{Stdout: io.Discard, Stderr: io.Discard}
	made, err := agents[0].Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := agents[1].Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := networks(t, c, cluster); n != 1 {
		t.Errorf("networks in use: got %d, want 1", n)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	for _, a := range agents[1:] {
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if res := runOrder(t, agents[0], orderOf(o.Image, o.Spec)); res.err != nil || res.exit.Interrupted != "" {
		t.Errorf("after the others left: got %+v, want a run", res)
	}
	if _, err := docker.Cleanup(t.Context(), c, cluster); err != nil {
		t.Error(err)
	}
	if n := networks(t, c, cluster) + rules(t, cluster); n != 0 {
		t.Errorf("left: got %d networks and rules, want none", n)
	}
}

func TestNetworkThatWasRemovedIsMadeAgain(t *testing.T) {
	c := engine(t)
	cluster := newCluster(t, c)
	r := newRuntime(t, c, cluster, "n1", true)
	if os.Geteuid() != 0 {
		wantNoRights(t, r)
		return
	}
	remove := func() {
		t.Helper()
		list, err := c.NetworkList(t.Context(), network.ListOptions{Filters: clusterLabel(cluster)})
		if err != nil || len(list) != 1 {
			t.Fatalf("networks: got %d, %v; want 1", len(list), err)
		}
		if err := c.NetworkRemove(t.Context(), list[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := r.Probe(t.Context()); err != nil || !e.Egress {
		t.Fatalf("probe: got %+v, %v; want egress", e, err)
	}
	spec := task.Spec{Command: []string{"prog", "print", "hi"}, Network: task.NetworkEgress}
	remove()
	if res := runOrder(t, r, orderOf(imageOf(t, c, images.Prog), spec)); res.err != nil || res.stdout != "hi" {
		t.Errorf("removed before the create: got %+v, want hi", res)
	}
	var out strings.Builder
	o := orderOf(imageOf(t, c, images.Prog), spec)
	o.Output = runtime.Sink{Stdout: &out, Stderr: io.Discard}
	made, err := r.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	remove()
	if err := made.Start(t.Context()); err != nil {
		t.Fatalf("removed before the start: %v", err)
	}
	if exit, err := made.Wait(t.Context()); err != nil || exit.Interrupted != "" || out.String() != "hi" {
		t.Errorf("removed before the start: got %+v, %v, %q; want hi", exit, err, out.String())
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCleanupTakesOneClusterOnly(t *testing.T) {
	c := engine(t)
	mine, theirs := newCluster(t, c), newCluster(t, c)
	root := os.Geteuid() == 0
	for _, cluster := range []string{mine, theirs} {
		for _, node := range []string{"n1", "n2"} {
			r := newRuntime(t, c, cluster, node, root)
			if _, err := r.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
			started(t, r, sleeper(t, c))
		}
	}
	want := 2
	if root {
		want = 6 // and a network with three rules, and where there is IPv6 one more
	}
	removed, err := docker.Cleanup(t.Context(), c, mine)
	if err != nil || removed < want || removed > want+1 {
		t.Errorf("got %d, %v; want %d removed", removed, err, want)
	}
	if removed, err := docker.Cleanup(t.Context(), c, mine); err != nil || removed != 0 {
		t.Errorf("again: got %d, %v; want none", removed, err)
	}
	left, err := c.ContainerList(t.Context(), container.ListOptions{All: true, Filters: clusterLabel(theirs)})
	if err != nil || len(left) != 2 {
		t.Errorf("the other cluster's: got %d, %v; want 2", len(left), err)
	}
	if root && networks(t, c, theirs) != 1 {
		t.Error("the other cluster's network is gone")
	}
	if _, err := docker.Cleanup(context.Background(), c, ""); err == nil {
		t.Error("no cluster: got none, want an error")
	}
	if _, err := docker.Cleanup(t.Context(), c, theirs); err != nil {
		t.Error(err)
	}
}
