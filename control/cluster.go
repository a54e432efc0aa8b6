package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"ecs/control/api"
	"ecs/control/dashboard"
	"ecs/internal/pki"
	"ecs/internal/task"
)

// leaderless is how long a node may be without a leader before its health
// check fails: an election is shorter, an outage longer.
const leaderless = 10 * time.Second

// handler is the HTTP API over this node, and the dashboard over that.
func (s *Server) handler() (*api.Handler, error) {
	pages, err := dashboard.New(api.PagesPath, s.cfg.Log)
	if err != nil {
		return nil, err
	}
	cfg := api.Config{
		Tasks: s, Reader: s, Explainer: s, Outputs: s, Inputs: s, Cluster: s, Images: s, Logs: s, Keys: s, Authority: s, Sealer: s.cfg.Seal, Auth: s.authenticator(),
		Metrics: s.cfg.MetricsHandler, Log: s.cfg.Log, Version: s.cfg.Version, Stats: s.cfg.Metrics, Audit: s.cfg.Audit, AuditArgv: s.cfg.AuditArgv,
		Limits: s.cfg.Limits, Proxies: s.cfg.Proxies,
		Pages: func(w http.ResponseWriter, r *http.Request, v *api.Visit) { pages.Serve(w, r, v) },
		NewID: func() task.ID { return task.ID(strings.ToLower(ulid.Make().String())) },
	}
	if s.cfg.Traces != nil { // a nil one in the interface would not be nil
		cfg.Traces = s.cfg.Traces
	}
	return api.New(cfg), nil
}

// Info is the cluster as this node sees it.
func (s *Server) Info(context.Context) api.ClusterInfo {
	leader, _ := s.replica.Leader()
	info := api.ClusterInfo{Name: s.cfg.Cluster, Node: s.cfg.ID, Version: s.cfg.Version, Leader: leader, Term: s.replica.Term()}
	for _, v := range s.replica.Voters() {
		info.Voters = append(info.Voters, api.Voter{ID: v.ID, Addr: v.Addr, Voter: v.Voter})
	}
	for _, m := range s.members.Snapshot() {
		info.Members = append(info.Members, api.Member{ID: m.ID, Name: m.Name, Role: m.Role, Zone: m.Zone, Version: m.Version,
			HTTPAddr: m.HTTPAddr, Draining: m.Draining})
	}
	info.Gossip = s.rotation()
	return info
}

// Health says whether this node can accept a task and answer it.
func (s *Server) Health(context.Context) api.Health {
	checks := []api.Check{s.checkLeader(), s.checkDrain(), s.checkDisk(), s.checkCertificate(), s.checkAgents(), s.checkGossip()}
	h := api.Health{Ready: true, Checks: checks}
	for _, c := range checks {
		// Without agents a task can still be accepted: it waits. That is red
		// in v1's _health, which asks for more. Gossip decides nothing.
		if !c.OK && c.Name != checkAgents && c.Name != checkGossip {
			h.Ready = false
			h.Reasons = append(h.Reasons, c.Detail)
		}
	}
	return h
}

const (
	checkAgents = "agents"
	checkGossip = "gossip"
)

func (s *Server) checkLeader() api.Check {
	c := api.Check{Name: "raft"}
	id, _ := s.replica.Leader()
	silent := s.replica.LastContact()
	switch {
	case id == "" && silent > leaderless:
		c.Detail = fmt.Sprintf("no leader heard of for %s", silent.Round(time.Second))
	case id == "" && time.Since(s.started) < leaderless && s.store.Snapshot().Index() == 0:
		c.Detail = "not part of a cluster yet"
	case !s.CaughtUp():
		c.Detail = "the record is not up to date yet: no leader found since the start"
	default:
		c.OK, c.Detail = true, "leader "+id
	}
	return c
}

func (s *Server) checkDrain() api.Check {
	if s.draining.Load() {
		return api.Check{Name: "drain", Detail: "the node is draining"}
	}
	return api.Check{Name: "drain", OK: true}
}

// checkDisk writes and removes a small file where the log is.
func (s *Server) checkDisk() api.Check {
	c := api.Check{Name: "disk", OK: true}
	if s.cfg.DataDir == "" {
		return c
	}
	f, err := os.CreateTemp(s.cfg.DataDir, ".health-")
	if err == nil {
		_, err = f.WriteString("ok")
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		c.OK, c.Detail = false, "can't write the data directory: "+err.Error()
	}
	return c
}

func (s *Server) checkCertificate() api.Check {
	for _, c := range []struct {
		whose string
		end   func() time.Time
	}{{"node's", s.cfg.NotAfter}, {"public", s.cfg.PublicNotAfter}} {
		if c.end == nil {
			continue
		}
		if end := c.end(); time.Now().After(end) {
			return api.Check{Name: "certificate", Detail: "the " + c.whose + " certificate expired at " + end.Format(time.RFC3339)}
		}
	}
	return api.Check{Name: "certificate", OK: true}
}

// checkGossip is red when gossip shows nobody but this node, while Raft has others.
func (s *Server) checkGossip() api.Check {
	controls, agents := 0, 0
	for _, m := range s.members.Snapshot() {
		if m.Role == string(pki.RoleAgent) {
			agents++
		} else {
			controls++
		}
	}
	alone := controls+agents <= 1 && len(s.replica.Voters()) > 1
	return api.Check{Name: checkGossip, OK: !alone, Detail: fmt.Sprintf("%d control nodes and %d agents are members", controls, agents)}
}

func (s *Server) checkAgents() api.Check {
	total, able := 0, 0
	for n := range s.store.Snapshot().Nodes() {
		if n.Status == task.Left {
			continue
		}
		total++
		if n.Takes() {
			able++
		}
	}
	return api.Check{Name: checkAgents, OK: able > 0, Detail: fmt.Sprintf("%d of %d agents can take tasks", able, total)}
}
