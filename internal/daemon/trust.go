package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"

	"ecs/internal/clusterfiles"
	"ecs/internal/pki"
	"ecs/internal/telemetry"
	"ecs/proto/ecs/v1/rpc"
)

// Place are the settings that say which node this is and how others reach it.
type Place struct {
	Name, Zone, DataDir string
	Advertise           string
	GossipAddr          string
	Join                List
}

// Define declares the settings.
func (p *Place) Define(fs *flag.FlagSet, dataDir string) {
	host, _ := os.Hostname() // without one, --name must be given
	fs.StringVar(&p.Name, "name", host, "the node's `name`, for people")
	fs.StringVar(&p.Zone, "zone", "default", "the `zone` the node is in; tasks are spread over zones")
	fs.StringVar(&p.DataDir, "data-dir", dataDir, "`directory` of the node's own data")
	fs.StringVar(&p.Advertise, "advertise", "", "`host` or address others reach this node at; default: the one it listens on, else its private address")
	fs.StringVar(&p.GossipAddr, "gossip-addr", ":7946", "`host:port` for gossip, TCP and UDP")
	fs.Var(&p.Join, "join", "gossip `addresses` of control nodes to find the cluster through")
}

// Check reports every problem of the settings.
func (p *Place) Check() error {
	var faults []error
	for name, value := range map[string]string{"name": p.Name, "zone": p.Zone, "data-dir": p.DataDir} {
		if value == "" {
			faults = append(faults, fmt.Errorf("--%s is needed", name))
		}
	}
	if _, _, err := net.SplitHostPort(p.Advertise); err == nil {
		faults = append(faults, errors.New("--advertise takes a host without a port"))
	}
	faults = append(faults, CheckAddr("gossip-addr", p.GossipAddr))
	for _, addr := range p.Join {
		faults = append(faults, CheckAddr("join", addr))
	}
	return errors.Join(faults...)
}

// AdvertiseGossip is Advertise for gossip, which knows addresses only; empty
// where gossip finds its own.
func (p *Place) AdvertiseGossip(ctx context.Context) (string, error) {
	if p.Advertise == "" {
		return "", nil
	}
	_, port, err := net.SplitHostPort(p.GossipAddr)
	if err != nil {
		return "", err
	}
	found, err := net.DefaultResolver.LookupIPAddr(ctx, p.Advertise)
	if err != nil {
		return "", fmt.Errorf("find the address of --advertise %s: %w", p.Advertise, err)
	}
	return net.JoinHostPort(found[0].IP.String(), port), nil
}

// CheckAddr reports a setting that is not a host:port.
func CheckAddr(setting, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("--%s: want host:port: %w", setting, err)
	}
	return nil
}

// Trust are the settings that say whom this node trusts and how it proves
// itself to others.
type Trust struct {
	CA, Cert, Key, GossipKey string
	Await                    bool
}

// Define declares the settings.
func (t *Trust) Define(fs *flag.FlagSet) {
	fs.StringVar(&t.CA, "ca", "/etc/ecs/ca.crt", "`file` with the certificate of the cluster's authority")
	fs.StringVar(&t.Cert, "cert", "/etc/ecs/node.crt", "`file` with this node's certificate, which names its role and id")
	fs.StringVar(&t.Key, "key", "/etc/ecs/node.key", "`file` with this node's private key")
	fs.StringVar(&t.GossipKey, "gossip-key", "/etc/ecs/gossip.key", "`file` with the cluster's gossip key, with which the node begins; the cluster's own rotations follow it")
	fs.BoolVar(&t.Await, "await-join", false, "where the file of --cert is not there yet, wait for ecsctl join --token to get it")
}

// Awaited reports whether the node is to wait for its certificate.
func (t *Trust) Awaited() bool {
	_, err := os.Lstat(t.Cert)
	return t.Await && errors.Is(err, fs.ErrNotExist)
}

// Load reads the files; the certificate must be one for role.
func (t *Trust) Load(role pki.Role) (*pki.Node, []byte, error) {
	node, err := pki.LoadNode(t.CA, t.Cert, t.Key)
	if err == nil && node.Identity().Role != role {
		err = fmt.Errorf("%s is for the role %s, want %s", t.Cert, node.Identity().Role, role)
	}
	key, keyErr := clusterfiles.ReadKey(t.GossipKey)
	if keyErr != nil {
		keyErr = fmt.Errorf("read the gossip key: %w", keyErr)
	}
	return node, key, errors.Join(err, keyErr)
}

// WarnOfExpiry logs when node's certificate is about to expire or has.
func WarnOfExpiry(log *slog.Logger, node *pki.Node) {
	const soon = 7 * 24 * time.Hour
	if left := time.Until(node.Expires()); left < soon {
		log.Warn("this node's certificate expires; peers refuse it after that", "expires", node.Expires())
	}
}

// Dialer makes connections to nodes of the given role, over mutual TLS, with more
// options if there are any.
func Dialer(node *pki.Node, role pki.Role, more ...grpc.DialOption) func(addr string) (*grpc.ClientConn, error) {
	creds := node.ClientCredentials(role)
	return func(addr string) (*grpc.ClientConn, error) {
		// Passed through: an address from gossip is not to be looked up by
		// gRPC's own resolver, which would hold on to what it found.
		return grpc.NewClient("passthrough:///"+addr, slices.Concat(rpc.DialOptions(), []grpc.DialOption{
			grpc.WithTransportCredentials(creds),
			grpc.WithChainUnaryInterceptor(telemetry.UnaryClientCID()),
			grpc.WithChainStreamInterceptor(telemetry.StreamClientCID())}, more)...)
	}
}
