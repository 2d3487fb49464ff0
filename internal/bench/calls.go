package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/layerfs/layerfs/internal/strace"
)

// calls counts system calls and requests for an operation: what takes as long as it
// takes on a machine, but happens as often on any.
func (b *bench) calls() error {
	few, many := 1000, 6000
	var loads [2]int
	for i, n := range []int{few, many} {
		s, err := b.newStore()
		if err != nil {
			return err
		}
		archive, err := b.dockerArchive(fmt.Sprintf("files-%d.tar", n), []manyImage{{"localhost/files:1", [][]byte{smallFiles(n)}}})
		if err != nil {
			return err
		}
		counts, err := strace.Count(b.ctx, exec.Command(b.binary, s.args("load", "-q", "-i", archive)...))
		if err != nil {
			return err
		}
		loads[i] = strace.Sum(counts)
		if i == 1 {
			err = b.requestsOf(s, n)
		}
		if err != nil {
			return err
		}
	}
	b.bound("system calls of load for one more small file", float64(loads[1]-loads[0])/float64(many-few), 0.5, decimals, 0)
	return nil
}

// filesInDir is how many files smallFiles puts into a directory.
const filesInDir = 50

// smallFiles packs n different files of some hundred bytes.
func smallFiles(n int) []byte {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("srv/d%03d/f%05d", i/filesInDir, i)] = strings.Repeat(fmt.Sprintf("line %d\n", i), 10+i%20)
	}
	return tarOf(files)
}

// requestsOf counts what reaches the server of fresh mounts with n files, and what
// the server calls for it.
func (b *bench) requestsOf(s *store, n int) error {
	dirs := float64(n/filesInDir + 2)
	find := counted{"requests of a first find, for each directory", 3, dirs, func(d string) (sample, error) { return b.script(find, d) }}
	read := func(d string) (sample, error) { return b.helper("helper-readall", d) }
	for _, walks := range [][]counted{
		{find, {"requests of a first open-read-close after it, for each file", 2.1, float64(n), read}, {"requests of a second open-read-close, for each file", 0, float64(n), read}},
		{{"requests of a first ls -lR, for each directory", 4, dirs, func(d string) (sample, error) { return b.script(lslR, d) }}},
	} {
		if err := b.countWalks(s, walks); err != nil {
			return err
		}
	}
	return nil
}

// counted is something to do in a tree whose requests are counted.
type counted struct {
	what   string
	target float64
	per    float64
	walk   func(dir string) (sample, error)
}

// countWalks does one after the other on a mount of its own.
func (b *bench) countWalks(s *store, walks []counted) error {
	mnt, err := s.mount()
	if err != nil {
		return err
	}
	defer func() { b.note(s.umount(mnt)) }()
	pid, err := s.server(mnt)
	if err != nil {
		return err
	}
	rootfs := filepath.Join(mnt, "images/localhost/files@1/rootfs")
	callsBefore, err := transfers(pid)
	if err != nil {
		return err
	}
	before, err := requests(mnt)
	if err != nil {
		return err
	}
	for _, c := range walks {
		sum, err := extraRequests(mnt, func() (sample, error) { return c.walk(rootfs) })
		if err != nil {
			return err
		}
		b.bound(c.what, float64(sum)/c.per, c.target, decimals, 0)
	}
	callsAfter, err := transfers(pid)
	if err != nil {
		return err
	}
	after, err := requests(mnt)
	if err != nil {
		return err
	}
	served := int64(0)
	for op, count := range after {
		served += count - before[op]
	}
	b.bound("reads and writes of the server for each request", float64(callsAfter-callsBefore)/float64(served), 2.1, decimals, 0)
	return nil
}

// transfers is how often a process has called read, write and their relatives.
func transfers(pid int) (n int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		var calls int64
		if _, err := fmt.Sscanf(line, "syscr: %d", &calls); err == nil {
			n += calls
		} else if _, err := fmt.Sscanf(line, "syscw: %d", &calls); err == nil {
			n += calls
		}
	}
	return n, nil
}

func decimals(n float64) string { return fmt.Sprintf("%.3f", n) }
