package faulttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/disk"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// An action is something that is done to a store.
type action struct {
	name  string
	setup []string // actions that come before it, on the common store
	run   func(ctx context.Context, s *layers.Store, arg string) error
	// damaged says that the store is damaged before it, so that no check is clean before
	// it has succeeded.
	damaged bool
	// same says that it changes nothing that the picture shows.
	same bool
	// fresh says that it begins with no store at all.
	fresh bool
}

// common is what every store of these tests holds before an action.
var common = []string{"load base", "load second", "create box", "write box", "layer record", "set data", "gc"}

var (
	boxID = strings.Repeat("b0", 32)
	newID = strings.Repeat("c1", 32)
	recID = strings.Repeat("d2", 32)
	appID = strings.Repeat("e3", 32)
)

// actions are those that are tested; those that only prepare are in preparations.
var actions = []action{
	{name: "load", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Load(ctx, newImage(baseTar(), newTar()), &layers.LoadOptions{Names: []string{"new:1", "also:1"}})
		return err
	}},
	{name: "first load", fresh: true, run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Load(ctx, newImage(baseTar()), &layers.LoadOptions{Names: []string{"base:1"}})
		return err
	}},
	{name: "pull", run: pull},
	{name: "commit", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Commit(ctx, "box", &layers.CommitOptions{Names: []string{"committed:1"}, Message: "m", Created: time.Unix(1e9, 0)})
		return err
	}},
	{name: "create", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.CreateContainer(ctx, &layers.ContainerOptions{Image: "base:1", ID: newID, Names: []string{"new"}, Labels: map[string]string{"a": "b"}})
		return err
	}},
	{name: "tag", run: func(ctx context.Context, s *layers.Store, _ string) error {
		return s.Tag(ctx, "base:1", "other:1", "other:2")
	}},
	{name: "untag", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Untag(ctx, "base:2")
		return err
	}},
	{name: "rmi", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Remove(ctx, "second:1", nil)
		return err
	}},
	{name: "gc", setup: []string{"garbage", "broken load"}, same: true, run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.GC(ctx, false)
		return err
	}},
	{name: "squeeze", same: true, run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Squeeze(ctx, nil)
		return err
	}},
	{name: "apply", setup: []string{"empty record"}, run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.ApplyLayer(ctx, "empty", bytes.NewReader(newTar()), nil)
		return err
	}},
	{name: "layer create", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.CreateLayerFrom(ctx, &layers.CreateLayerOptions{ID: appID, Names: []string{"app"}}, bytes.NewReader(newTar()), nil)
		return err
	}},
	{name: "layer rm", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.DeleteLayer(ctx, "rec", false)
		return err
	}},
	{name: "import", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Import(ctx, bytes.NewReader(newTar()), &layers.ImportOptions{Names: []string{"imported:1"}, Created: time.Unix(1e9, 0)})
		return err
	}},
	{name: "rename", run: func(ctx context.Context, s *layers.Store, _ string) error {
		return s.RenameContainer(ctx, "box", "chest")
	}},
	{name: "label", run: func(ctx context.Context, s *layers.Store, _ string) error {
		return s.SetContainerLabels(ctx, "box", map[string]string{"tier": "back"}, nil)
	}},
	{name: "rm", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.DeleteContainer(ctx, "box", false)
		return err
	}},
	{name: "bigdata", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.SetBigData(ctx, "base:1", []byte("k"), strings.NewReader(noise(20, 5000)))
		return err
	}},
	{name: "metadata", run: func(ctx context.Context, s *layers.Store, _ string) error {
		return s.SetMetadata(ctx, "base:1", "changed")
	}},
	{name: "repair", setup: []string{"damage"}, damaged: true, run: func(ctx context.Context, s *layers.Store, _ string) error {
		r, err := s.Repair(ctx, &layers.RepairOptions{From: []layers.Source{newImage(baseTar()), newImage(baseTar(), topTar())}})
		return repaired(r, err)
	}},
	{name: "rebuild", setup: []string{"lose index"}, damaged: true, run: func(ctx context.Context, s *layers.Store, _ string) error {
		return repaired(s.Repair(ctx, nil))
	}},
}

// repaired makes an error of a problem that is left.
func repaired(r *layers.CheckReport, err error) error {
	if err != nil {
		return err
	}
	for _, p := range r.Problems {
		if p.State != layers.StateRepaired {
			err = errors.Join(err, fmt.Errorf("left: %s", p))
		}
	}
	return err
}

// preparations make the store that actions begin with.
var preparations = []action{
	{name: "load base", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Load(ctx, newImage(baseTar()), &layers.LoadOptions{Names: []string{"base:1", "base:2"}})
		return err
	}},
	{name: "load second", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.Load(ctx, newImage(baseTar(), topTar()), &layers.LoadOptions{Names: []string{"second:1"}})
		return err
	}},
	{name: "create box", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.CreateContainer(ctx, &layers.ContainerOptions{Image: "base:1", ID: boxID, Names: []string{"box"}})
		return err
	}},
	{name: "write box", run: func(_ context.Context, s *layers.Store, _ string) error {
		up := s.UpperPath(boxID)
		return errors.Join(os.WriteFile(filepath.Join(up, "written"), []byte(noise(21, 6000)), 0o644),
			os.Mkdir(filepath.Join(up, "made"), 0o755), os.WriteFile(filepath.Join(up, "made", "large"), []byte(noise(22, 140_000)), 0o600))
	}},
	{name: "layer record", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.CreateLayerFrom(ctx, &layers.CreateLayerOptions{ID: recID, Names: []string{"rec"}}, bytes.NewReader(topTar()), nil)
		return err
	}},
	{name: "empty record", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.CreateLayer(ctx, &layers.CreateLayerOptions{ID: appID, Names: []string{"empty"}})
		return err
	}},
	{name: "set data", run: func(ctx context.Context, s *layers.Store, _ string) error {
		_, err := s.SetBigData(ctx, "second:1", []byte("k"), strings.NewReader("data"))
		return err
	}},
	// An image that was removed while somebody read it is garbage when he has gone.
	{name: "garbage", run: func(ctx context.Context, s *layers.Store, _ string) error {
		img, err := s.Load(ctx, newImage(deadTar()), &layers.LoadOptions{Names: []string{"dead:1"}})
		if err != nil {
			return err
		}
		l, err := s.OpenLayer(img.DiffIDs()[0])
		if err != nil {
			return err
		}
		_, err = s.Remove(ctx, "dead:1", nil)
		return errors.Join(err, l.Close())
	}},
	// A load that was killed late leaves much.
	{name: "broken load", run: func(ctx context.Context, s *layers.Store, _ string) error {
		var n atomic.Int64
		d := &disk.Disk{Hook: func(op disk.Op, _ string) error {
			if op == disk.OpRename || n.Load() > 0 {
				if n.Add(1) > 2 {
					return unix.EIO
				}
			}
			return nil
		}}
		broken, err := layers.Open(s.Root(), &layers.Options{Disk: d})
		if err != nil {
			return err
		}
		defer broken.Close()
		if _, err := broken.Load(ctx, newImage(newTar()), &layers.LoadOptions{Names: []string{"broken:1"}}); !errors.Is(err, unix.EIO) {
			return fmt.Errorf("the broken load ended with %v", err)
		}
		return nil
	}},
	{name: "damage", run: func(ctx context.Context, s *layers.Store, _ string) error {
		img, err := s.Image(ctx, "second:1")
		if err != nil {
			return err
		}
		dir := filepath.Join(s.Root(), "layers", img.DiffIDs()[1].Hex())
		return errors.Join(flip(filepath.Join(dir, "tree"), 200), os.WriteFile(filepath.Join(s.Root(), "index.journal"), []byte("no journal\n"), 0o600),
			flipFirst(filepath.Join(s.Root(), "objects")), os.WriteFile(filepath.Join(s.Root(), "format"), []byte("{"), 0o600))
	}},
	{name: "lose index", run: func(_ context.Context, s *layers.Store, _ string) error {
		return os.Remove(filepath.Join(s.Root(), "index.db"))
	}},
}

// flip changes a byte of a file.
func flip(path string, at int) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[min(at, len(raw)-1)] ^= 0x55
	return os.WriteFile(path, raw, 0o600)
}

// flipFirst changes a byte of the first file below a directory.
func flipFirst(dir string) error {
	done := false
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || done || !e.Type().IsRegular() {
			return err
		}
		done = true
		return flip(path, 1000)
	})
	if err == nil && !done {
		return fmt.Errorf("%s: no file", dir)
	}
	return err
}

func pull(ctx context.Context, s *layers.Store, addr string) error {
	c, err := registry.New(&registry.Options{Backoff: time.Millisecond})
	if err != nil {
		return err
	}
	names, err := c.Resolve(addr + "/team/app:1")
	if err != nil {
		return err
	}
	r, err := c.FindAny(ctx, names)
	if err != nil {
		return err
	}
	list, err := r.Instances(ctx)
	if err != nil {
		return err
	}
	in, err := registry.Select(list, nil)
	if err != nil {
		return err
	}
	_, err = r.Pull(ctx, s, in, &layers.LoadOptions{Names: []string{r.Name}})
	return err
}

// perform does one request in the worker.
func perform(q *request) (lines []string, err error) {
	switch q.Do {
	case "mount box":
		return nil, mountBox(q.Root, q.Arg, q.Boot)
	case "umount box":
		return nil, umountBox()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o := &layers.Options{Timeout: 20 * time.Second, Boot: q.Boot}
	o.Repair = q.Do == "repair" || q.Do == "rebuild"
	s, err := layers.Open(q.Root, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if q.Do == "look" {
		return look(ctx, s)
	}
	for _, list := range [][]action{actions, preparations} {
		for _, a := range list {
			if a.name == q.Do {
				return nil, a.run(ctx, s, q.Arg)
			}
		}
	}
	return nil, fmt.Errorf("nobody knows how to do %q", q.Do)
}

// look returns what a full check finds, one line each that begins with "!", and after a
// collection what the store shows.
func look(ctx context.Context, s *layers.Store) ([]string, error) {
	r, err := s.Check(ctx, &layers.CheckOptions{Deep: true})
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if _, err := s.GC(ctx, false); err != nil {
		return nil, fmt.Errorf("gc: %w", err)
	}
	lines, err := picture(ctx, s)
	for _, p := range r.Problems {
		lines = append(lines, "! "+p.String())
	}
	return lines, err
}

// picture says what a store shows to its users.
func picture(ctx context.Context, s *layers.Store) (lines []string, err error) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	images, err := s.Images(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		say("image %s %q %q", i.ID, i.Metadata, i.Flags)
		for _, n := range i.Names {
			say("name %s %s %s", n.Name, n.Image, n.Manifest.Digest)
		}
		if err := pictureData(ctx, s, string(i.ID), say); err != nil {
			return nil, err
		}
	}
	boxes, err := s.Containers(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, c := range boxes {
		text, err := s.ChangesText(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		say("container %s %q %q %s %q", c.ID, c.Names, c.Labels, c.Image, text)
		if size, err := s.DiffSize(ctx, c.ID, ""); err != nil {
			return nil, err
		} else if _, err := s.Diff(ctx, io.Discard, c.ID, ""); err != nil {
			return nil, err
		} else {
			say("container %s %d bytes", c.ID, size)
		}
	}
	records, err := s.LayerNodes(ctx, true)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		say("record %s %q %s", r.ID, r.Names, r.DiffID)
	}
	list, err := s.Layers(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range list {
		say("layer %s %d", l.DiffID, l.Size)
	}
	return lines, nil
}

func pictureData(ctx context.Context, s *layers.Store, item string, say func(string, ...any)) error {
	list, err := s.ListBigData(ctx, item)
	if err != nil {
		return err
	}
	for _, d := range list {
		say("data %s %q %s", item, d.Key, d.Digest)
	}
	return nil
}
