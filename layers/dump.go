package layers

import (
	"context"
	"io"
)

// Dump writes the index of the store as text; see package index for its form.
func (s *Store) Dump(ctx context.Context, w io.Writer) error { return s.index.Dump(ctx, w) }
