package telemetry

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// UnaryClientCID sends the context's correlation id along with a call.
func UnaryClientCID() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return invoke(outgoing(ctx), method, req, reply, cc, opts...)
	}
}

// StreamClientCID sends the context's correlation id along with a stream.
func StreamClientCID() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
		stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return stream(outgoing(ctx), desc, cc, method, opts...)
	}
}

// UnaryServerCID gives the handler's context the caller's correlation id.
func UnaryServerCID() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		return handle(incoming(ctx), req)
	}
}

// StreamServerCID gives the handler's context the caller's correlation id.
func StreamServerCID() grpc.StreamServerInterceptor {
	return func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		return handle(srv, cidStream{s, incoming(s.Context())})
	}
}

type cidStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s cidStream) Context() context.Context { return s.ctx }

func outgoing(ctx context.Context) context.Context {
	if cid := CID(ctx); cid != "" && printable(cid) {
		return metadata.AppendToOutgoingContext(ctx, CIDMetadata, cid)
	}
	return ctx
}

// printable reports whether gRPC takes s as a header; it fails the whole call
// for one that it does not take.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

func incoming(ctx context.Context) context.Context {
	if cids := metadata.ValueFromIncomingContext(ctx, CIDMetadata); len(cids) > 0 {
		return WithCID(ctx, cids[0])
	}
	return ctx
}
