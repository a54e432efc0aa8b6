package task

// Bounds of the files that are kept of a task. The program decides what they
// are, so everything about them is bounded.
const (
	MaxOutputPaths    = 32
	MaxOutputPath     = 1 << 10  // bytes of one path
	MaxOutputsBytes   = 64 << 20 // of the tar
	MaxOutputsEntries = 1 << 16  // of files, directories and links in it
)

// Outputs is what the record knows of the files that a task left. They are one
// tar in the spool of the node that ran it; nothing of them is in the record.
type Outputs struct {
	Bytes   int64 // of the tar
	SHA256  [32]byte
	Entries int
	// Truncated: there was more than the bounds allow. What is kept ends with a
	// whole entry.
	Truncated bool
	Missing   []int  // which of Spec.Outputs were not there
	Lost      string // why there is no tar; empty: there is one
}

// Stream gives the tar as a stream of which the record holds nothing. Without
// outputs it is empty.
func (o *Outputs) Stream() *Stream {
	if o == nil {
		return &Stream{}
	}
	return &Stream{Bytes: o.Bytes, Kept: o.Bytes, SHA256: o.SHA256, Truncated: o.Truncated}
}
