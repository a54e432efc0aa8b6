package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	// linkLocal is where clouds put their metadata servers.
	linkLocal = "169.254.0.0/16"
	// tablesCall is how long one iptables command may take; it waits for the
	// lock that all of them share.
	tablesCall = 10 * time.Second
)

// rule is one firewall rule. Rules are put first in their chain.
type rule struct {
	program string // iptables or ip6tables
	chain   string
	match   []string
	// optional: without it things are still closed off.
	optional bool
	// exception: it lets through what another rule of its chain rejects.
	exception bool
}

// ensureRules makes those of the rules that are missing. An exception below a
// rule that is new goes in again, above it.
func ensureRules(ctx context.Context, rules []rule) error {
	renewed := map[string]bool{} // chains that got a rule
	for _, r := range rules {
		at := r.program + " " + r.chain
		_, err := tables(ctx, r.program, append([]string{"-C", r.chain}, r.match...)...)
		if err == nil {
			if !r.exception || !renewed[at] {
				continue
			}
			if _, err := tables(ctx, r.program, append([]string{"-D", r.chain}, r.match...)...); err != nil {
				return err
			}
		}
		_, err = tables(ctx, r.program, append([]string{"-I", r.chain, "1"}, r.match...)...)
		if err != nil && !r.optional {
			return err
		}
		renewed[at] = true
	}
	return nil
}

// egressRules are the rules of a bridge, those first that go further down.
//
// DOCKER-USER sees what is forwarded, before the engine's own rules; INPUT sees
// what is meant for this machine, whichever of its addresses is asked. A name
// server can be among the denied addresses, in a cloud also among the metadata
// addresses: then that one port stays open, or no task could resolve a name.
func egressRules(bridge, cluster string, denied []netip.Prefix, resolvers []netip.Addr) []rule {
	mark := []string{"-m", "comment", "--comment", ruleComment(cluster)}
	on := func(match ...string) []string { return append(append([]string{"-i", bridge}, match...), mark...) }
	rules := []rule{
		{program: "iptables", chain: "INPUT", match: append(on(), "-j", "REJECT")},
		// Tasks have no IPv6; this is for one that was given capabilities.
		{program: "ip6tables", chain: "INPUT", match: append(on(), "-j", "REJECT"), optional: true},
	}
	denied = append([]netip.Prefix{netip.MustParsePrefix(linkLocal)}, denied...)
	for _, d := range denied {
		rules = append(rules, rule{program: "iptables", chain: "DOCKER-USER", match: append(on("-d", d.String()), "-j", "REJECT")})
	}
	slices.SortFunc(resolvers, netip.Addr.Compare)
	for _, server := range slices.Compact(resolvers) {
		if !slices.ContainsFunc(denied, func(d netip.Prefix) bool { return d.Contains(server) }) {
			continue
		}
		for _, proto := range []string{"udp", "tcp"} {
			rules = append(rules, rule{program: "iptables", chain: "DOCKER-USER", exception: true,
				match: append(on("-d", server.String()+"/32", "-p", proto, "--dport", "53"), "-j", "RETURN")})
		}
	}
	return rules
}

// ruleComment marks every rule of a cluster. It holds no character that
// iptables would quote.
func ruleComment(cluster string) string {
	plain := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.':
			return c
		}
		return '_'
	}, cluster)
	return "ecs.cluster=" + plain
}

// removeRules removes every rule of a cluster and says how many there were.
func removeRules(ctx context.Context, cluster string) (int, error) {
	removed := 0
	var errs []error
	for _, at := range []struct{ program, chain string }{{"iptables", "INPUT"}, {"ip6tables", "INPUT"}, {"iptables", "DOCKER-USER"}} {
		list, err := tables(ctx, at.program, "-S", at.chain)
		if err != nil {
			continue // no such program or chain: no such rules
		}
		for _, words := range rulesMarked(list, ruleComment(cluster)) {
			if _, err := tables(ctx, at.program, append([]string{"-D"}, words...)...); err != nil {
				errs = append(errs, err)
				continue
			}
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

// rulesMarked picks from a listing the rules with the comment, in the words
// that delete them.
func rulesMarked(listing, comment string) [][]string {
	var found [][]string
	for line := range strings.Lines(listing) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "-A" {
			continue
		}
		for i, w := range words[:len(words)-1] {
			if w == "--comment" && strings.Trim(words[i+1], `"`) == comment {
				words[i+1] = comment
				found = append(found, words[1:])
				break
			}
		}
	}
	return found
}

// tables runs one iptables command and gives what it printed.
func tables(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tablesCall)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-w", "5"}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		why, _, _ := strings.Cut(strings.TrimSpace(errOut.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, why)
	}
	return out.String(), nil
}

// resolvers are the name servers that the engine gives to containers: the
// machine's own, also those behind a local stub.
func resolvers() []netip.Addr {
	var found []netip.Addr
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		text, err := os.ReadFile(file)
		if err == nil {
			found = append(found, nameServers(string(text))...)
		}
	}
	return found
}

func nameServers(resolvConf string) []netip.Addr {
	var found []netip.Addr
	for line := range strings.Lines(resolvConf) {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == "nameserver" {
			if a, err := netip.ParseAddr(words[1]); err == nil {
				found = append(found, a)
			}
		}
	}
	return found
}
