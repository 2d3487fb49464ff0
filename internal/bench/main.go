package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		if h, ok := helpers()[os.Args[1]]; ok {
			exit(h(os.Args[2:]))
			return
		}
	}
	exit(run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// run parses the flags and works through the rows.
func run() error {
	images := flag.String("images", os.Getenv("LAYERFS_BENCH_IMAGES"), "`DIR` with NAME.oci.tar (default LAYERFS_BENCH_IMAGES; without it images are made)")
	only := flag.String("only", "", "run the rows whose name matches `REGEX`")
	n := flag.Int("n", 5, "measure each side `N` times")
	work := flag.String("work", "", "`DIR` for stores and trees, on the file system to measure (default a temporary one)")
	binary := flag.String("layerfs", "bin/layerfs", "`FILE` of the program to measure")
	markdown := flag.String("markdown", "", "put the tables into `FILE` too, between its lines "+markBegin+" and "+markEnd)
	user := flag.String("user", "", "measure the rows of ordinary users as `NAME` (default the owner of the first subordinate range)")
	list := flag.Bool("list", false, "list the rows and end")
	flag.Usage = help
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	if *list {
		for _, r := range rows() {
			fmt.Println(r.name)
		}
		return nil
	}
	b, err := newBench(*images, *work, *binary, *n)
	if err != nil {
		return err
	}
	defer b.close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx, b.user = ctx, *user
	b.rows(match)
	b.print(os.Stdout)
	if *markdown != "" && context.Cause(ctx) == nil {
		return b.markdown(*markdown)
	}
	return context.Cause(ctx)
}

func help() {
	fmt.Fprint(flag.CommandLine.Output(), `bench compares layerfs with the programs that do the same work.

  go run ./internal/bench [flags]

`)
	flag.PrintDefaults()
	fmt.Fprint(flag.CommandLine.Output(), `
See the package comment (go doc ./internal/bench) for the images and the words.
`)
}

// A row is one line of work of the table of promises; it may give several lines.
type row struct {
	name  string
	topic string
	// needs are the programs without which the row makes no sense, or "root".
	needs []string
	run   func(*bench) error
}

// The topics of the tables.
const (
	aboutImages     = "Images: load, mount, read, give out"
	aboutContainers = "Containers"
	aboutTransport  = "Registries and archives"
)

func rows() []row {
	return slices.Concat([]row{
		{"load debpy", aboutImages, nil, func(b *bench) error { return b.load("debpy", 1.0, 0.6) }},
		{"load nodeapp", aboutImages, nil, func(b *bench) error { return b.load("nodeapp", 0.6, 0.35) }},
		{"load debslim, all peers", aboutImages, nil, func(b *bench) error { return b.loadEverywhere("debslim") }},
		{"mount", aboutImages, nil, (*bench).mountToLs},
		{"again", aboutImages, []string{"root"}, (*bench).again},
		{"first", aboutImages, []string{"root", "fuse-overlayfs"}, (*bench).first},
		{"100 layers", aboutImages, nil, (*bench).hundred},
		{"sequential", aboutImages, []string{"root", "fuse-overlayfs"}, (*bench).sequential},
		{"sequential, ordinary user", aboutImages, []string{"root", "fuse-overlayfs", "fusermount3"}, (*bench).sequentialUser},
		{"tar out", aboutImages, []string{"root"}, (*bench).tarOut},
		{"memory", aboutImages, nil, (*bench).memory},
		{"calls", aboutImages, []string{"strace"}, (*bench).calls},
		{"disk", aboutImages, nil, (*bench).disk},
		{"disk of 20", aboutImages, nil, (*bench).diskOf20},
	}, containerRows(), []row{
		{"pull debpy", aboutTransport, []string{"docker-registry", "skopeo"}, func(b *bench) error { return b.pull("debpy", 1.05, 0.5) }},
		{"push again", aboutTransport, []string{"docker-registry"}, (*bench).pushAgain},
		{"save", aboutTransport, []string{"pigz", "zstd"}, (*bench).save},
	})
}

// rows runs the rows whose names match; one that fails is reported and does not
// end the others.
func (b *bench) rows(match *regexp.Regexp) {
	for _, r := range rows() {
		if !match.MatchString(r.name) || b.ctx.Err() != nil {
			continue
		}
		if why := lacks(r.needs); why != "" {
			b.skip(r.name, why)
			continue
		}
		b.progress("%s", r.name)
		b.topic = r.topic
		start := time.Now()
		if err := r.run(b); err != nil {
			b.skip(r.name, err.Error())
		}
		b.progress("  took %s", time.Since(start).Round(time.Second))
	}
}

// lacks returns why something of a list is not there.
func lacks(needs []string) string {
	for _, need := range needs {
		if need == "root" {
			if os.Geteuid() != 0 {
				return "needs root"
			}
			continue
		}
		if _, err := exec.LookPath(need); err != nil {
			return need + " is not installed"
		}
	}
	return ""
}

// bench is one run: where things are, and the lines so far.
type bench struct {
	ctx     context.Context
	binary  string // layerfs
	self    string // this program, for its helpers
	images  string
	work    string
	own     bool // work is ours to remove
	n       int
	lines   []line
	skipped []string
	cleanup []func()
	trees   map[string]*treesOf // by image
	place   *workplace          // for work in containers
	big     *bigFile
	topic   string      // of the row that runs
	user    string      // whom to be for the rows of ordinary users
	as      *credential // who runs the programs; nil: whoever runs bench

	began      time.Time
	loadBefore string
}

func newBench(images, work, binary string, n int) (*bench, error) {
	b := &bench{ctx: context.Background(), images: images, work: work, n: max(1, n), trees: map[string]*treesOf{}, began: time.Now(), loadBefore: load()}
	var err error
	if b.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if _, err := os.Stat(b.binary); err != nil {
		return nil, fmt.Errorf("%w; run make build, or give -layerfs", err)
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if images != "" {
		if found, err := filepath.Glob(filepath.Join(images, "*.oci*")); err != nil || len(found) == 0 {
			return nil, fmt.Errorf("%s: no NAME.oci.tar and no NAME.oci in it", images)
		}
	}
	if work != "" { // mounts are known by absolute names
		if work, err = filepath.Abs(work); err != nil {
			return nil, err
		}
	}
	if work == "" {
		b.work, err = os.MkdirTemp("", "layerfs-bench-")
		b.own = true
	} else {
		b.work, err = os.MkdirTemp(work, "bench-")
		b.own = true
	}
	return b, err
}

// close undoes what the run left, the last first.
func (b *bench) close() {
	b.undo()
	b.detachAll()
	if b.own {
		os.RemoveAll(b.work)
	}
}

// undo calls what is to be cleaned up, the last first.
func (b *bench) undo() {
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func (b *bench) skip(name, why string) {
	b.progress("%s: left out: %s", name, why)
	b.skipped = append(b.skipped, name+": "+strings.TrimSpace(why))
}

// errNoImage is returned by rows for images that DIR does not have.
var errNoImage = errors.New("the images directory has no such image")
