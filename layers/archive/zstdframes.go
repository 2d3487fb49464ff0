package archive

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// zstdPiece is what becomes one frame. The size is fixed, so that the same content
	// gives the same bytes on every machine.
	zstdPiece = 8 << 20
	// maxZstdWorkers limits the memory, of which a core needs some 30 MiB.
	maxZstdWorkers = 8
)

// A zstdFrame is a piece of content on its way through a compressor.
type zstdFrame struct {
	in   []byte
	out  bytes.Buffer
	err  error
	done chan struct{} // gets one value when out is ready
}

// writeZstd compresses r on all cores: each piece of it becomes a frame, and the frames
// are written in order. Frames one after the other are one zstd file (RFC 8878, section
// 3). Level 0 means 1: that takes two thirds of the time of level 3, for some 8 % more.
func writeZstd(w io.Writer, r io.Reader, level int) error {
	workers := min(runtime.GOMAXPROCS(0), maxZstdWorkers)
	// A frame is in one of free, the hands of the reader, queue, the hands of the writer.
	frames := workers + 1
	free, queue := make(chan *zstdFrame, frames), make(chan *zstdFrame, frames)
	for range frames {
		free <- &zstdFrame{in: make([]byte, zstdPiece), done: make(chan struct{}, 1)}
	}
	failed := make(chan struct{})
	var werr error // set before failed is closed
	var writer, compressors sync.WaitGroup
	writer.Go(func() {
		for f := range queue {
			<-f.done
			if werr == nil {
				if werr = f.err; werr == nil {
					_, werr = w.Write(f.out.Bytes())
				}
				if werr != nil {
					close(failed)
				}
			}
			free <- f
		}
	})
	work := make(chan *zstdFrame, frames)
	for range workers {
		compressors.Go(func() { compressFrames(work, level) })
	}
	err := eachPiece(r, free, failed, func(f *zstdFrame) {
		work <- f
		queue <- f
	})
	close(work)
	compressors.Wait()
	close(queue)
	writer.Wait()
	return errors.Join(err, werr)
}

// compressFrames compresses what comes.
func compressFrames(work <-chan *zstdFrame, level int) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(max(level, 1))))
	for f := range work {
		f.out.Reset()
		if f.err = err; err == nil {
			enc.ResetContentSize(&f.out, int64(len(f.in)))
			_, werr := enc.Write(f.in)
			f.err = errors.Join(werr, enc.Close())
		}
		f.done <- struct{}{}
	}
}

// eachPiece reads all of r into frames from free and calls fn with each, until stop is
// closed; an empty content gives one empty piece.
func eachPiece(r io.Reader, free <-chan *zstdFrame, stop <-chan struct{}, fn func(*zstdFrame)) error {
	for first := true; ; first = false {
		select {
		case <-stop:
			return nil
		default:
		}
		f := <-free
		n, err := readPiece(r, f.in[:zstdPiece])
		if err != nil && err != io.EOF {
			return err
		}
		if f.in = f.in[:n]; n > 0 || first {
			fn(f)
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readPiece fills p unless r ends. Unlike io.ReadFull it returns the error of r in every
// case.
func readPiece(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}
