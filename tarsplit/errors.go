package tarsplit

import (
	"errors"
	"fmt"
	"io"
)

// ErrDamaged is returned when a stored form or a JSON form does not hold what
// its own lengths and checksums say. The layer has to be loaded again.
var ErrDamaged = errors.New("tar-split data is damaged")

// ErrVersion is returned when a stored form was written in a format that this
// program does not know. A newer version of the program reads it.
var ErrVersion = errors.New("tar-split data has an unknown format version; a newer version of this program is needed")

// A FormatError says that a stream is not a tar from Offset on. What came
// before it was delivered and recorded; [Splitter.Drain] records the rest.
type FormatError struct {
	Offset int64  // where in the stream the offending header or body starts
	Reason string // what is wrong there
	Err    error  // io.ErrUnexpectedEOF when the stream ends too early, else nil
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("tar stream, offset %d: %s", e.Offset, e.Reason)
}

// Unwrap returns e.Err.
func (e *FormatError) Unwrap() error { return e.Err }

func truncated(offset int64, what string) *FormatError {
	return &FormatError{Offset: offset, Reason: "the stream ends inside " + what, Err: io.ErrUnexpectedEOF}
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}
