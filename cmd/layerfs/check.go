package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
	"github.com/layerfs/layerfs/layers/registry"
)

// checkOptions are the flags of check.
type checkOptions struct {
	fast, deep bool
	repair     bool
	from       []string
	registry   *registry.Options
	quiet      bool
	format     string
	out        io.Writer
	progress   io.Writer
}

func checkCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "check", Category: "The store",
		Usage:     "verify everything in the store, and repair it",
		UsageText: "layerfs check [--fast|--deep] [--repair [--from SRC]...]",
		Description: `Reads the index, the trees, manifests, configs, compressed layers and the content of
every file, and compares them with their digests and checksums. It changes nothing and
may run while the store is used. Each problem is a line that says which file of which
layer is damaged, with the images that show it; the exit code is then 5. JSON has the
fields problems, images, layers, bodies, bytes.

With --repair it makes good what it can: the index from its journal, which says all
names, images and containers again, and from the layers; trees from what is kept of the
layers' tars; the rest from compressed layers that are kept, from additional stores, and
from what --from names: an archive, a layout directory or docker://NAME. What cannot be
made good is put into quarantine: reading it is an error, all else goes on working. The
exit code is 5 when something is left. Loading an image again heals it too.

Examples:
   layerfs check
   layerfs check --fast            # without reading the contents of files
   layerfs check --repair
   layerfs check --repair --from debian.tar --from docker://registry.example/app:1`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "fast", Usage: "leave out what needs reading the contents of all files"},
			&cli.BoolFlag{Name: "deep", Usage: "also put every layer's tar together and compare its digest"},
			&cli.BoolFlag{Name: "repair", Usage: "make good what is damaged"},
			&cli.StringSliceFlag{Name: "from", Usage: "`SRC` of images to repair from: FILE, DIR or docker://NAME; can be repeated"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		}, registryFlags()...),
		Action: func(c *cli.Context) error {
			o, err := e.checkOptions(c)
			if err != nil {
				return err
			}
			open := e.checkStore
			if o.repair {
				open = e.repairStore
			}
			return withStore(c, open, func(ctx context.Context, st *layers.Store) error {
				return check(ctx, o, st)
			})
		},
	}
}

func (e *env) checkOptions(c *cli.Context) (*checkOptions, error) {
	if err := argCount(c, 0, 0, ""); err != nil {
		return nil, err
	}
	o := &checkOptions{
		fast: c.Bool("fast"), deep: c.Bool("deep"), repair: c.Bool("repair"), from: c.StringSlice("from"),
		quiet: c.Bool("quiet"), format: c.String("format"), out: e.stdout, progress: e.stderr,
	}
	switch {
	case o.fast && o.deep:
		return nil, usagef("--fast and --deep exclude each other")
	case len(o.from) > 0 && !o.repair:
		return nil, usagef("--from is for --repair")
	case o.repair && (o.fast || o.deep):
		return nil, usagef("--repair reads everything once; --fast and --deep are for a check")
	}
	var err error
	o.registry, err = e.registryOptions(c)
	return o, err
}

// repairStore opens the store in whatever state it is.
func (e *env) repairStore() (*layers.Store, error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, err
	}
	o, err := e.storeOptions()
	if err != nil {
		return nil, err
	}
	o.Repair = true
	return e.open(root, o)
}

// checkStore opens the store to look at it, in whatever state it is.
func (e *env) checkStore() (*layers.Store, error) {
	st, err := e.viewStore()
	if errors.Is(err, layers.ErrDamaged) {
		return e.repairStore()
	}
	return st, err
}

// check prints what is wrong and returns an error when anything is.
func check(ctx context.Context, o *checkOptions, st *layers.Store) error {
	r, err := o.run(ctx, st)
	if err != nil {
		return err
	}
	if r.Problems == nil {
		r.Problems = []layers.Problem{} // [] in JSON
	}
	if o.format != "text" {
		if err := printOne(o.out, o.format, r); err != nil {
			return err
		}
	} else {
		o.print(r)
	}
	if n := unrepaired(r); n > 0 {
		return &quietError{fmt.Errorf("%w: %d problems", layers.ErrDamaged, n)}
	}
	return nil
}

// run checks or repairs.
func (o *checkOptions) run(ctx context.Context, st *layers.Store) (*layers.CheckReport, error) {
	var progress func(done, total int64)
	if terminalWidth(o.progress) > 0 && !o.quiet {
		var last time.Time
		progress = func(done, total int64) {
			if time.Since(last) < redrawEvery {
				return
			}
			last = time.Now()
			fmt.Fprintf(o.progress, "\r\x1b[K%s of %s", size(done), size(total))
		}
		defer fmt.Fprint(o.progress, "\r\x1b[K")
	}
	if !o.repair {
		return st.Check(ctx, &layers.CheckOptions{Fast: o.fast, Deep: o.deep, Progress: progress})
	}
	ro := &layers.RepairOptions{Progress: progress}
	for _, from := range o.from {
		sources, done, err := o.sources(ctx, st, from)
		if err != nil {
			return nil, fmt.Errorf("--from %s: %w", from, err)
		}
		defer done()
		ro.From = append(ro.From, sources...)
	}
	return st.Repair(ctx, ro)
}

// sources opens all images of an archive or of a name in a registry.
func (o *checkOptions) sources(ctx context.Context, st *layers.Store, from string) (list []layers.Source, done func(), err error) {
	if strings.HasPrefix(from, registryScheme) {
		return o.remoteSources(ctx, st, from)
	}
	if strings.HasPrefix(from, storageScheme) {
		return nil, nil, usagef("--from %s: what podman has is not taken from there; write it to a file with `podman save --format oci-archive -o FILE` first", from)
	}
	l, err := parseLocation(from)
	if err != nil {
		return nil, nil, err
	}
	path := from
	if l != nil {
		path = l.path
	}
	a, err := archive.Open(path, &archive.Options{TempDir: filepath.Join(st.Root(), "tmp")})
	if err != nil {
		return nil, nil, fileError(err)
	}
	for _, img := range a.Images() {
		if !img.Artifact {
			list = append(list, img.Source)
		}
	}
	return list, func() { _ = a.Close() }, nil // it was only read
}

func (o *checkOptions) remoteSources(ctx context.Context, st *layers.Store, from string) (list []layers.Source, done func(), err error) {
	remote, err := findRemote(ctx, o.registry, from)
	if err != nil {
		return nil, nil, err
	}
	instances, err := remote.Instances(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, in := range instances {
		if err := remote.Allowed(ctx, in); err != nil {
			return nil, nil, err
		}
	}
	var opened []*registry.Source
	for _, in := range instances {
		src := remote.Open(ctx, in, st)
		opened, list = append(opened, src), append(list, src)
	}
	return list, func() {
		for _, src := range opened {
			_ = src.Close(true) // what was fetched is of no use any more
		}
	}, nil
}

// unrepaired counts what is still wrong.
func unrepaired(r *layers.CheckReport) int {
	n := 0
	for _, p := range r.Problems {
		if p.State != layers.StateRepaired {
			n++
		}
	}
	return n
}

// maxShown is how many problems are printed as text.
const maxShown = 1000

func (o *checkOptions) print(r *layers.CheckReport) {
	for i, p := range r.Problems {
		if i == maxShown {
			fmt.Fprintf(o.out, "… and %s more; --format json has all\n", count(int64(len(r.Problems)-i), "problem"))
			break
		}
		fmt.Fprintln(o.out, printable(p.String()))
		for _, img := range p.Images {
			fmt.Fprintf(o.out, "   in image %s  %s\n", short(string(img.ID), false), names(img))
		}
	}
	left := unrepaired(r)
	verdict := "no problems"
	if left > 0 {
		verdict = count(int64(left), "problem")
	}
	if n := len(r.Problems) - left; n > 0 {
		verdict += fmt.Sprintf(", %d repaired", n)
	}
	fmt.Fprintf(o.out, "%s, %s, %s checked: %s\n", count(int64(r.Images), "image"),
		count(int64(r.Layers), "layer"), count(r.Bodies, "file content"), verdict)
	if left > 0 && !o.repair {
		fmt.Fprintln(o.out, "run `layerfs check --repair`; with --from ARCHIVE it can use the image as it came, and so can `layerfs load`")
	}
}
