package layers

import (
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// A verifiedReader reads a blob and compares its size and digest at the end.
type verifiedReader struct {
	f    *os.File
	want DataItem
	hash hash.Hash
	n    int64
}

func (r *verifiedReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	if err == io.EOF && (r.n != r.want.Size || digest.NewDigest(digest.SHA256, r.hash) != r.want.Digest) {
		return n, fmt.Errorf("%w: big data %q: its content does not have the digest %s; set it again", ErrDamaged, r.want.Key, r.want.Digest)
	}
	return n, err
}

// Close implements io.Closer.
func (r *verifiedReader) Close() error { return r.f.Close() }
