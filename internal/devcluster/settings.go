package devcluster

import (
	"os"

	"go.yaml.in/yaml/v3"

	"ecs/internal/clusterfiles"
	"ecs/proto/api"
)

// agentGrace is how long a stopped agent lets its tasks finish: nobody waits
// long for a cluster that is thrown away.
const agentGrace = "1s"

// engineStarts is how many containers all agents together start, and remove, at
// once on the engine that they share. With many more at a time each takes longer,
// and Engine 20.10 has been seen to lock up.
const engineStarts = 6

// writeSettings writes the YAML files that the node's daemon and its fence are
// started with.
func (c *cluster) writeSettings(n node, expect int) error {
	settings := map[string]any{
		"name":        n.Name,
		"zone":        n.Zone,
		"data_dir":    c.path(n.Name, "data"),
		"join":        c.gossipAddrs(n),
		"gossip_addr": n.Gossip,
		"health_addr": n.Health,
		"ca":          c.path(clusterfiles.CACert),
		"cert":        c.path(n.Name, clusterfiles.NodeCert),
		"key":         c.path(n.Name, clusterfiles.NodeKey),
		"gossip_key":  c.path(clusterfiles.GossipKey),
		"log_level":   "info",
	}
	if n.Role == roleControl {
		settings["bootstrap_expect"] = expect
		settings["drain"] = "0s"
		settings["http_addr"] = n.HTTP
		settings["rpc_addr"] = n.RPC
		settings["debug_addr"] = n.Debug
		settings["raft_addr"] = n.Raft
		settings["htpasswd"] = c.path(htpasswdFile)
		settings["ca_key"] = c.path(clusterfiles.CAKey)
		settings["htpasswd_role"] = "admin" // there is one key, and it is its maker's
		for _, limit := range c.unlimited() {
			settings[limit] = 0
		}
		settings["seal_key"] = c.path(clusterfiles.SealKey)
	} else {
		settings["output_addr"] = n.Output
		settings["cpus"] = c.Agents.CPUs.String()
		settings["memory"] = c.Agents.Memory.String()
		settings["warm_count"] = c.Agents.WarmCount
		settings["warm_memory"] = (max(api.Size(c.Agents.WarmCount), 1) * warmMemory).String()
		settings["docker_host"] = c.DockerHost
		settings["default_registry"] = c.Agents.DefaultRegistry
		settings["insecure_registry"] = c.Agents.InsecureRegistries
		settings["grace"] = agentGrace
		settings["starts"] = max(1, c.Agents.Starts)
		settings["fence_socket"] = "" // none
	}
	if c.fenced(n) {
		settings["fence_socket"] = c.path(n.Name, fenceSocket)
		if err := writeYAML(c.path(n.Name, fenceConfig), map[string]any{
			"socket": c.path(n.Name, fenceSocket), "state_dir": c.path(n.Name, fenceState), "log_level": "info",
		}); err != nil {
			return err
		}
	}
	return writeYAML(c.path(n.Name, configFile), settings)
}

// unlimited are the settings of limits that don't count.
func (c *cluster) unlimited() []string {
	if c.Limited {
		return nil
	}
	return []string{"key_rate", "key_concurrency", "key_quota", "address_rate", "address_concurrency", "docs_rate", "docs_concurrency"}
}

func writeYAML(path string, settings map[string]any) error {
	text, err := yaml.Marshal(settings)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// gossipAddrs are the control nodes to join through, without the node itself.
func (c *cluster) gossipAddrs(self node) []string {
	var addrs []string
	for _, n := range c.Nodes {
		if n.Role == roleControl && n.Name != self.Name {
			addrs = append(addrs, n.Gossip)
		}
	}
	return addrs
}
