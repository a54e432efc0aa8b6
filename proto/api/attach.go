package api

import "encoding/json"

// AttachProtocol is the WebSocket subprotocol of GET /v2/tasks/{id}/attach.
const AttachProtocol = "attach.v2.ecs"

// Every message is binary. Its first byte is the channel; on ChannelControl the
// rest is an AttachControl in JSON, on the others it is bytes of that stream.
const (
	ChannelStdin   byte = 0 // from the caller; at most AttachPiece bytes
	ChannelStdout  byte = 1
	ChannelStderr  byte = 2
	ChannelControl byte = 3
)

// Bounds of what a caller may send.
const (
	AttachPiece  = 32 << 10  // bytes of one piece of standard input
	AttachWindow = 256 << 10 // bytes of it that are not taken yet, see AttachStdin
	AttachText   = 4 << 10   // bytes of one control message
)

// Codes that the service closes the connection with.
const (
	CloseEnded    = 1000 // the task has finished, and exit was sent before
	CloseProtocol = 1008 // the caller sent what the protocol does not have
	CloseRestart  = 1012 // this node stops: come back, to another one
	CloseLater    = 1013 // it can't go on now, see the error before: come back
)

// AttachMessage is one control message. One member is set.
type AttachMessage struct {
	// From the caller.
	Resize     *TerminalSize `json:"resize,omitempty"`
	Signal     string        `json:"signal,omitempty"` // INT, TERM, ... with or without SIG
	CloseStdin bool          `json:"close_stdin,omitempty"`

	// From the service.
	State *AttachState `json:"state,omitempty"`
	// Attempt says whose output follows. A higher one than before begins
	// again at offset 0.
	Attempt int          `json:"attempt,omitempty"`
	Stdin   *AttachStdin `json:"stdin,omitempty"`
	// Exit is the finished task without its output, the last message.
	Exit  *Task    `json:"exit,omitempty"`
	Error *Problem `json:"error,omitempty"`
}

// TerminalSize is the size of a terminal in characters.
type TerminalSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// AttachState says how far an unfinished task is.
type AttachState struct {
	State          string `json:"state"`
	Stopping       string `json:"stopping,omitempty"`
	WaitingBecause string `json:"waiting_because,omitempty"`
	QueuePosition  int    `json:"queue_position,omitempty"`
}

// AttachStdin says what became of standard input.
type AttachStdin struct {
	// Taken is how many bytes of this writer's the program's standard input
	// took. No more than AttachWindow may be sent beyond it.
	Taken int64 `json:"taken"`
	// Ended: it took the end, too. Closed: it takes nothing (any more); what
	// is sent is thrown away.
	Ended  bool `json:"ended,omitempty"`
	Closed bool `json:"closed,omitempty"`
}

// Encode gives the message with its channel in front.
func (m *AttachMessage) Encode() ([]byte, error) {
	b, err := json.Marshal(m)
	return append([]byte{ChannelControl}, b...), err
}
