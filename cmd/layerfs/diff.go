package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// diffOptions are the flags of diff.
type diffOptions struct {
	item   string
	output string
	out    io.Writer
}

func diffCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "diff", Category: "Images in and out",
		Usage:     "write the tar of a layer, bit for bit as it came in",
		UsageText: "layerfs diff [-o FILE] LAYER|IMAGE",
		Description: `The tar is uncompressed; its sha256 is the layer's DiffID. For an image it is the
tar of its topmost layer.

Examples:
   layerfs diff sha256:1f0c… | sha256sum
   layerfs diff -o top.tar alpine`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "LAYER or IMAGE"); err != nil {
				return err
			}
			o := &diffOptions{item: c.Args().First(), output: c.String("output"), out: e.stdout}
			if o.output == "" && terminalWidth(e.stdout) > 0 {
				return usagef("a tar is nothing for a terminal; redirect the output or use -o FILE")
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return diff(ctx, o, st)
			})
		},
	}
}

// diff writes the tar of a layer.
func diff(ctx context.Context, o *diffOptions, st *layers.Store) (err error) {
	d, err := findLayer(ctx, st, o.item)
	if err != nil {
		return err
	}
	l, err := st.OpenLayer(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	tar, err := l.Tar()
	if err != nil {
		return err
	}
	return writeOutput(o.output, o.out, func(w io.Writer) error {
		v := newVerifyWriter(&ctxWriter{ctx, w})
		_, err := tar.WriteTo(v)
		got := v.sum()
		if err == nil && got != digest.Digest(d) {
			err = fmt.Errorf("%w: the tar came out with the digest %s, not %s; run layerfs check", layers.ErrDamaged, got, d)
		}
		return err
	})
}

// findLayer returns the layer that is meant, of an image the topmost one.
func findLayer(ctx context.Context, st *layers.Store, item string) (layers.DiffID, error) {
	img, layer, err := find(ctx, st, item)
	if err != nil {
		return "", err
	}
	if layer != nil {
		return layers.DiffID(layer.DiffID), nil
	}
	if len(img.Layers) == 0 {
		return "", fmt.Errorf("%w: image %s has no layers", layers.ErrLayerUnknown, item)
	}
	return layers.DiffID(img.Layers[len(img.Layers)-1]), nil
}

// A verifyWriter hashes what it writes in a goroutine of its own: a second core
// takes as long for it as the first for the writing.
type verifyWriter struct {
	w      io.Writer
	chunk  []byte
	full   chan []byte // to the hasher
	free   chan []byte // back from it
	result chan digest.Digest
}

const (
	hashChunk = 256 << 10
	hashAhead = 8 // chunks that the writing may be ahead
)

func newVerifyWriter(w io.Writer) *verifyWriter {
	v := &verifyWriter{
		w: w, chunk: make([]byte, 0, hashChunk),
		full: make(chan []byte, hashAhead), free: make(chan []byte, hashAhead+1), result: make(chan digest.Digest, 1),
	}
	for range hashAhead {
		v.free <- make([]byte, 0, hashChunk)
	}
	go func() {
		h := sha256.New()
		for p := range v.full {
			h.Write(p)
			v.free <- p[:0]
		}
		v.result <- digest.NewDigest(digest.SHA256, h)
	}()
	return v
}

// Write hands a copy to the hasher, because p is the caller's again afterwards.
func (v *verifyWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), hashChunk-len(v.chunk))
		v.chunk, rest = append(v.chunk, rest[:n]...), rest[n:]
		if len(v.chunk) == hashChunk {
			v.full <- v.chunk
			v.chunk = <-v.free
		}
	}
	return v.w.Write(p)
}

// sum ends the hasher and returns the digest of all that was written.
func (v *verifyWriter) sum() digest.Digest {
	v.full <- v.chunk
	close(v.full)
	return <-v.result
}

// A ctxWriter stops when the context ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w *ctxWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}
