package telemetry

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ecsv1 "ecs/proto/ecs/v1"
	"ecs/proto/ecs/v1/rpc"
)

// What one node gives at most, whatever it is asked for.
const (
	MaxLogLines = 5000
	MaxLogBytes = 1 << 20
)

// LogServer implements rpc.LogsServer over a process' own ring.
type LogServer struct {
	rpc.UnimplementedLogsServer
	ring  *Ring
	admit func(context.Context) error
}

// NewLogServer serves what ring keeps to whom admit lets in; nil: to everyone
// who reaches it. Without a ring there is nothing to find.
func NewLogServer(ring *Ring, admit func(context.Context) error) *LogServer {
	return &LogServer{ring: ring, admit: admit}
}

// Find gives the newest lines of one correlation id, oldest first.
func (s *LogServer) Find(ctx context.Context, q *ecsv1.LogRequest) (*ecsv1.LogAnswer, error) {
	if s.admit != nil {
		if err := s.admit(ctx); err != nil {
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if q.GetCid() == "" {
		return nil, status.Error(codes.InvalidArgument, "a correlation id is needed")
	}
	return FindLogs(s.ring, q), nil
}

// FindLogs answers q from ring, which may be nil.
func FindLogs(ring *Ring, q *ecsv1.LogRequest) *ecsv1.LogAnswer {
	if ring == nil {
		return &ecsv1.LogAnswer{}
	}
	found := ring.Find(Search{CID: q.GetCid(), Owner: q.GetOwner(),
		Lines: int(min(q.GetLines(), MaxLogLines)), Bytes: int(min(q.GetBytes(), MaxLogBytes))})
	answer := &ecsv1.LogAnswer{Lines: found.Lines, Cut: found.Cut}
	if !found.Since.IsZero() {
		answer.Since = found.Since.UnixNano()
	}
	return answer
}
