package rpc

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// Keepalive of both ends of a connection. They belong together: a server whose
// MinTime is longer than its clients' Time hangs up on them (grpc-go's default
// is 5 minutes). A half-open connection is noticed after Time + Timeout.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	keepaliveMin     = 5 * time.Second
)

// handshakeWithin bounds how long a connection may take to become one, so that
// strangers hold none; grpc-go's default is 2 minutes.
const handshakeWithin = 5 * time.Second

// RingHold is how long a control node holds a call for the ring of gossip keys when
// the caller has the newest.
const RingHold = 30 * time.Second

// MaxMessage bounds one message, in bytes. The largest is an assignment with a
// full request body, or an output chunk; both are far below it.
const MaxMessage = 4 << 20

// Windows of flow control, in bytes. Fixed ones keep grpc-go from estimating
// the network's bandwidth, for which it answers every message that comes after a
// pause, a heartbeat say, with a ping.
const (
	streamWindow = 512 << 10
	connWindow   = 2 << 20
)

// ServerOptions are those of every gRPC server in the cluster.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.ConnectionTimeout(handshakeWithin),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
	}
}

// DialOptions are those of every gRPC client in the cluster. Reconnecting is
// quick and stays quick: a node that comes back must be found within a second,
// and there are few nodes.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage)),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
	}
}
