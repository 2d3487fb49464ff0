package compress

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// errTrailing is wrapped when something other than a member or zeros follows a
// gzip member.
var errTrailing = errors.New("data after the last member is neither gzip nor zeros")

// A gzipMembers reads member after member.
//
// Zeros after the last member are padding, as tapes and some uploaders leave it,
// and are skipped as gzip(1) does. Anything else there is an error: gzip(1) warns
// and ignores it, but nobody would see a warning here, and the cause is a damaged
// file.
type gzipMembers struct {
	src *source
	z   *gzip.Reader
	err error
}

func newGzipReader(s *source) (io.ReadCloser, error) {
	g := &gzipMembers{src: s, z: new(gzip.Reader)}
	if err := g.next(); err != nil {
		return nil, s.explain(KindGzip, err)
	}
	return &decoder{src: s, kind: KindGzip, r: g}, nil
}

// next starts the member at the source's position.
func (g *gzipMembers) next() error {
	if err := g.z.Reset(g.src.br); err != nil {
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	g.z.Multistream(false)
	return nil
}

// Read implements io.Reader. It goes on over empty members, so that it returns no
// data only with an error.
func (g *gzipMembers) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, g.err
	}
	for g.err == nil {
		n, err := g.z.Read(p)
		if err == io.EOF {
			err = g.between()
		}
		g.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, g.err
}

// between looks at what follows a member: io.EOF is the proper end.
func (g *gzipMembers) between() error {
	head, err := g.src.br.Peek(2)
	switch {
	case len(head) == 0:
		return err
	case head[0] == 0x1f && (len(head) == 1 || head[1] == 0x8b):
		return g.next()
	case head[0] == 0:
		return g.padding()
	}
	return errTrailing
}

// padding reads zeros up to the end.
func (g *gzipMembers) padding() error {
	for {
		b, err := g.src.br.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return fmt.Errorf("%w (after zeros)", errTrailing)
		}
	}
}
