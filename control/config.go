// Package control is a control node: its wiring, its life, and the loops that
// run while it leads.
package control

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/armon/go-metrics"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"ecs/control/api"
	"ecs/control/replica"
	"ecs/internal/access"
	"ecs/internal/gossip"
	"ecs/internal/pki"
	"ecs/internal/seal"
	"ecs/internal/telemetry"
	"ecs/internal/tracing"
)

// Config is everything a control node is given. Every edge takes its network
// from here, so that a whole cluster can run in memory.
type Config struct {
	ID      string // for ever; the certificate carries it
	Name    string // for people
	Zone    string
	Version string
	Cluster string // name of the cluster's CA

	DataDir string // holds raft/; unused when Stores is set
	// BootstrapExpect is how many control nodes gossip must show before they
	// form a new cluster: 1, 3 or 5; 0: it never does and waits to join one. A
	// node with state never bootstraps.
	BootstrapExpect int

	// What others dial, host:port.
	HTTPAdvertise, RPCAdvertise, RaftAdvertise string

	HTTP, Health, RPC net.Listener
	Raft              replica.StreamLayer
	Stores            *replica.Stores // nil: on disk in DataDir
	Gossip            gossip.Config   // Self is filled in

	ServerCreds credentials.TransportCredentials
	DialPeer    func(addr string) (*grpc.ClientConn, error) // another control node
	DialAgent   func(addr string) (*grpc.ClientConn, error) // an agent's output port
	Peer        func(context.Context) (pki.Identity, error)

	Seal *seal.Box
	// Keys are those of an htpasswd file, which count beside those of the
	// record. Nil: the record's alone.
	Keys *api.Htpasswd
	// KeysRole is what the file's keys may do.
	KeysRole access.Role
	// FirstKey, when set, keeps the admin key that is made where there never
	// was a key in the record.
	FirstKey FirstKey
	// Auth, when set, takes the place of both.
	Auth           api.Authenticator
	Limits         api.Limits
	Proxies        []netip.Prefix // that say where requests came from; see api.Config
	Log            *slog.Logger
	Recent         *telemetry.Ring  // what Log wrote last; nil: nothing of it can be asked for
	Audit          *telemetry.Audit // who did what; nil: nobody asks
	Traces         *tracing.Tracer  // exports spans; nil: none
	AuditArgv      bool             // command lines as they are in it, not as hashes
	Metrics        *metrics.Metrics
	MetricsHandler http.Handler
	// Now is a monotonic clock that counts suspended time, for leases.
	Now func() time.Duration
	// Authority, when set, lets this node sign certificates for others.
	Authority *Authority
	// Guard, when set, is told which certificates count no more.
	Guard *pki.Node
	// NotAfter is when the node's certificate expires; nil: never.
	NotAfter func() time.Time
	// TLS, when set, is spoken on HTTP, and Redirect, when set too, is a port
	// without it that sends everybody there. PublicNotAfter is when its
	// certificate expires.
	TLS            *tls.Config
	Redirect       net.Listener
	PublicNotAfter func() time.Time

	// DrainFor is how long a stopping node still accepts requests after its
	// health check failed, so that load balancers notice first. Default 0:
	// deployments set 20s.
	DrainFor time.Duration
	// ShutdownGrace is how long a stopping node then finishes HTTP answers
	// before it cuts them. Default 5 s.
	ShutdownGrace time.Duration
	// SnapshotEntries is how many entries of the log make a snapshot of the record
	// due; SnapshotInterval is how often that is looked at. Zero: as
	// replica.DefaultConfig has it.
	SnapshotEntries  uint64
	SnapshotInterval time.Duration
	// Fatal ends the process at once, because the disk hangs or the log can't
	// be read; see replica.Config.
	Fatal func(error)
}

// Validate reports everything that is missing, at once.
func (c *Config) Validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(c.ID != "", "a node id is needed")
	need(c.Zone != "", "a zone is needed: --zone")
	need(c.BootstrapExpect == 0 || c.BootstrapExpect == 1 || c.BootstrapExpect == 3 || c.BootstrapExpect == 5,
		"--bootstrap-expect is 0, 1, 3 or 5: an even number of voters survives no more losses than one fewer")
	need(c.HTTP != nil && c.RPC != nil && c.Raft != nil && c.Health != nil, "listeners for HTTP, health, RPC and Raft are needed")
	need(c.Stores != nil || c.DataDir != "", "a data directory is needed: --data-dir")
	need(c.Gossip.Keys != nil, "the cluster's gossip key is needed: --gossip-key")
	need(c.Seal != nil, "the cluster's seal key is needed: --seal-key")
	return errors.Join(errs...)
}
