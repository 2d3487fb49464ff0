package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A sample is one measurement.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // peak, in bytes
}

// samples are the measurements of one side.
type samples []sample

func wall(s sample) float64 { return s.wall.Seconds() }
func cpu(s sample) float64  { return s.cpu.Seconds() }
func rss(s sample) float64  { return float64(s.rss) }

// median of one property, and the spread around it.
func (list samples) median(of func(sample) float64) (median, spread float64) {
	if len(list) == 0 {
		return 0, 0
	}
	values := make([]float64, len(list))
	for i, s := range list {
		values[i] = of(s)
	}
	slices.Sort(values)
	median = values[len(values)/2]
	if len(values)%2 == 0 {
		median = (median + values[len(values)/2-1]) / 2
	}
	if median > 0 {
		spread = (values[len(values)-1] - values[0]) / 2 / median
	}
	return median, spread
}

// A side is one of the programs of a comparison. before and after are not
// measured; either may be nil.
type side struct {
	name   string
	before func() error
	run    func() (sample, error)
	after  func() error
}

// alternate measures the sides n times, in an order that turns around.
func (b *bench) alternate(n int, sides ...side) ([]samples, error) {
	out := make([]samples, len(sides))
	for i := range n {
		for j := range sides {
			k := (i + j) % len(sides)
			s, err := b.once(sides[k])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", sides[k].name, err)
			}
			out[k] = append(out[k], s)
		}
	}
	return out, nil
}

func (b *bench) once(s side) (sample, error) {
	if err := context.Cause(b.ctx); err != nil {
		return sample{}, err
	}
	if s.before != nil {
		if err := s.before(); err != nil {
			return sample{}, err
		}
	}
	got, err := s.run()
	if s.after != nil {
		err = errors.Join(err, s.after())
	}
	return got, err
}

// limit is how long one program may take.
const limit = 20 * time.Minute

// command runs a program and measures it with its children.
func (b *bench) command(name string, args ...string) (sample, error) {
	s, _, err := b.output(name, args...)
	return s, err
}

// output is command that also returns standard output.
func (b *bench) output(name string, args ...string) (sample, string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	b.as.apply(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, "", fmt.Errorf("%s: %w: %.500s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		s.rss = u.Maxrss << 10
	}
	return s, stdout.String(), nil
}

// script measures a shell script with arguments. Its output is not kept: write it
// to a counter, not to /dev/null, which some programs recognise.
func (b *bench) script(text string, args ...string) (sample, error) {
	return b.command("bash", append([]string{"-o", "pipefail", "-ec", text, "bash"}, args...)...)
}

// helper runs one of this program's own measurements in a process of its own and
// takes the time that it prints.
func (b *bench) helper(name string, args ...string) (sample, error) {
	_, out, err := b.output(b.self, append([]string{name}, args...)...)
	if err != nil {
		return sample{}, err
	}
	var ns int64
	if _, err := fmt.Sscan(out, &ns); err != nil {
		return sample{}, fmt.Errorf("%s printed %q", name, out)
	}
	return sample{wall: time.Duration(ns)}, nil
}
