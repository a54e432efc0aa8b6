package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// network is a bridge with a namespace of its own for every node: only so do
// filters by address hold (on one loopback nothing binds its source), and a
// packet that is dropped is dropped without a word. This process stays in the
// machine's own namespace, at the bridge's address.
type network struct {
	tag   string // begins the names of all that is made
	nodes map[string]string
}

const subnet = "10.219.77."

// here is the address of the clients, and of this process.
func (n *network) here() string { return subnet + "1" }

func newNetwork(tag string) (*network, error) {
	n := &network{tag: tag, nodes: make(map[string]string)}
	err := errors.Join(
		command("ip", "link", "add", n.bridge(), "type", "bridge"),
		command("ip", "addr", "add", n.here()+"/24", "dev", n.bridge()),
		command("ip", "link", "set", n.bridge(), "up"),
		// Where bridged packets pass the machine's filter, an engine's rules drop them.
		command("iptables", "-w", "10", "-I", "FORWARD", "-i", n.bridge(), "-o", n.bridge(), "-j", "ACCEPT"),
	)
	if err != nil {
		return nil, fmt.Errorf("make the network: %w", err)
	}
	return n, nil
}

func (n *network) bridge() string               { return n.tag + "br" }
func (n *network) namespace(node string) string { return n.tag + node }

// add gives a node its namespace and says what its address is.
func (n *network) add(node string) (string, error) {
	ns, outer := n.namespace(node), n.tag+node
	addr := subnet + strconv.Itoa(10+len(n.nodes))
	n.nodes[node] = addr
	for _, step := range [][]string{
		{"ip", "netns", "add", ns},
		{"ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", ns},
		{"ip", "link", "set", outer, "master", n.bridge(), "up"},
		{"ip", "-n", ns, "addr", "add", addr + "/24", "dev", "eth0"},
		{"ip", "-n", ns, "link", "set", "eth0", "up"},
		{"ip", "-n", ns, "link", "set", "lo", "up"},
	} {
		if err := command(step...); err != nil {
			return "", err
		}
	}
	return addr, nil
}

// inside gives the command line that runs another in a node's namespace. `ip
// netns exec` would mount another /sys, in which an agent finds no cgroup.
func (n *network) inside(node string, args ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + n.namespace(node)}, args...)
}

// rule is a filter in a node's namespace.
type rule struct {
	chain string // INPUT or OUTPUT
	match []string
}

// about reports whether the rule is for connections of a port, at either end.
func (r rule) about(port string) bool { return slices.Contains(r.match, port) }

// cut drops everything between a node and others, both ways.
func cut(addrs ...string) (rules []rule) {
	for _, a := range addrs {
		rules = append(rules, rule{"INPUT", []string{"-s", a}}, rule{"OUTPUT", []string{"-d", a}})
	}
	return rules
}

// deafen drops what comes from others; what goes to them arrives.
func deafen(addrs ...string) (rules []rule) {
	for _, a := range addrs {
		rules = append(rules, rule{"INPUT", []string{"-s", a}})
	}
	return rules
}

// lossy drops three packets of ten, both ways.
func lossy(addrs ...string) (rules []rule) {
	for _, r := range cut(addrs...) {
		r.match = append(r.match, "-m", "statistic", "--mode", "random", "--probability", "0.3")
		rules = append(rules, r)
	}
	return rules
}

// halfOpen drops what belongs to the connections that a node has to others now,
// and nothing of those it makes later.
func (n *network) halfOpen(node string, addrs ...string) (rules []rule, err error) {
	out, err := outputOf(n.inside(node, "ss", "-tnH", "state", "established")...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line) // receive queue, send queue, here, there
		if len(fields) < 4 {
			continue
		}
		_, here, _ := strings.Cut(fields[2], ":")
		there, port, _ := strings.Cut(fields[3], ":")
		for _, a := range addrs {
			if a == there {
				rules = append(rules, rule{"INPUT", []string{"-p", "tcp", "-s", a, "--sport", port, "--dport", here}},
					rule{"OUTPUT", []string{"-p", "tcp", "-d", a, "--sport", here, "--dport", port}})
			}
		}
	}
	return rules, nil
}

// filter adds rules to a node's namespace under a name.
func (n *network) filter(node, name string, rules []rule) error {
	return n.change(node, "-A", name, rules)
}

// change adds (-A) or deletes (-D) rules, all at once: one connection has two, and
// a program for each would take its time.
func (n *network) change(node, how, name string, rules []rule) error {
	var text strings.Builder
	text.WriteString("*filter\n")
	for _, r := range rules {
		fmt.Fprintf(&text, "%s %s %s -m comment --comment %s -j DROP\n", how, r.chain, strings.Join(r.match, " "), name)
	}
	text.WriteString("COMMIT\n")
	args := n.inside(node, "iptables-restore", "-w", "10", "-n")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(text.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)), text.String())
	}
	return nil
}

// unfilter removes them and says how many packets they took.
func (n *network) unfilter(node, name string, rules []rule) (packets int, err error) {
	out, err := outputOf(n.inside(node, "iptables", "-w", "10", "-vnxL")...)
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 && strings.Contains(line, "/* "+name+" */") {
			count, _ := strconv.Atoi(fields[0])
			packets += count
		}
	}
	return packets, errors.Join(err, n.change(node, "-D", name, rules))
}

func command(args ...string) error {
	_, err := outputOf(args...)
	return err
}

func outputOf(args ...string) (string, error) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
