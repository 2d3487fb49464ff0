package layers

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var histories = flag.Int("histories", 6, "how many random histories TestHistories lives through")

// A life is one random history of a store.
type life struct {
	t      *testing.T
	s      *Store
	r      *rand.Rand
	images []*memSource
	tars   [][]byte
	leases []*Lease
	opened []*Layer
	log    []string
}

// TestHistories does random things to a store, and compares what is on the disk with
// what is reachable, to the byte; and what a dry run said with what the real one did.
func TestHistories(t *testing.T) {
	for i := range *histories {
		seed := uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed)
			for range 40 {
				l.step()
				if t.Failed() {
					t.Fatalf("after\n%s", strings.Join(l.log, "\n"))
				}
			}
			l.end()
		})
	}
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, s: newStore(t), r: rand.New(rand.NewPCG(seed, 4))}
	body := func(i, n int) string { return strings.Repeat(fmt.Sprintf("body %d ", i), n) }
	for i := range 6 {
		var members []member
		for j := range 5 {
			k := 3*i + j // neighbours share two bodies
			size := []int{3, 300, 1500, 9000, 40_000}[k%5]
			members = append(members, file(fmt.Sprintf("f%d", j), body(k, size)))
		}
		l.tars = append(l.tars, archive(t, members...))
	}
	for i := range 8 {
		stack := [][]byte{l.tars[i%3]}
		for j := range i % 3 {
			stack = append(stack, l.tars[(i+2*j+1)%6])
		}
		l.images = append(l.images, image(t, stack...))
	}
	for i := range 4 {
		load(t, l.s, l.images[i], fmt.Sprintf("image%d", i))
	}
	return l
}

// allowedErrors are those that a step may meet because of what happened before.
var allowedErrors = []error{
	ErrImageUnknown, ErrLayerUnknown, ErrContainerUnknown, ErrNotAnID, ErrInUse, ErrDuplicateName, ErrApplied,
	ErrNoData, ErrParentIsContainer, ErrAmbiguous,
}

func (l *life) do(what string, err error) bool {
	l.t.Helper()
	l.log = append(l.log, fmt.Sprintf("%s: %v", what, err))
	for _, a := range allowedErrors {
		if errors.Is(err, a) {
			return false
		}
	}
	if err != nil {
		l.t.Errorf("%s: %v", what, err)
	}
	return err == nil
}

func (l *life) pick(kind string) string { return fmt.Sprintf("%s%d", kind, l.r.IntN(4)) }

func (l *life) step() {
	ctx, s := l.t.Context(), l.s
	switch l.r.IntN(20) {
	case 0, 1, 2, 16, 17, 18, 19:
		name := l.pick("image")
		_, err := s.Load(ctx, l.images[l.r.IntN(len(l.images))], &LoadOptions{Names: []string{name}, DropBlobs: l.r.IntN(2) == 0})
		l.do("load "+name, err)
	case 3:
		l.do("tag", s.Tag(ctx, l.pick("image"), l.pick("image")))
	case 4:
		_, err := s.Untag(ctx, l.pick("image"))
		l.do("untag", err)
	case 5, 6:
		l.removeImage(ctx, l.pick("image"))
	case 7:
		_, err := s.CreateContainer(ctx, &ContainerOptions{Image: l.pick("image"), Names: []string{l.pick("box")}})
		l.do("create", err)
	case 8:
		_, err := s.DeleteContainer(ctx, l.pick("box"), false)
		l.do("rm", err)
	case 9:
		l.createLayer(ctx)
	case 10:
		_, err := s.DeleteLayer(ctx, l.pick("layer"), false)
		l.do("layer rm", err)
	case 11:
		_, err := s.CreateImage(ctx, l.pick("layer"), &CreateImageOptions{Names: []string{l.pick("image")}})
		l.do("image create", err)
	case 12:
		_, err := s.SetBigData(ctx, l.pick("image"), []byte("key"), strings.NewReader(strings.Repeat("data", l.r.IntN(10_000))))
		l.do("bigdata", err)
	case 13:
		l.lease(ctx)
	case 14:
		l.collect(ctx)
	case 15:
		_, err := s.Delete(ctx, l.pick([]string{"image", "layer", "box"}[l.r.IntN(3)]))
		l.do("delete", err)
	}
}

func (l *life) createLayer(ctx context.Context) {
	parent := ""
	if l.r.IntN(2) == 0 {
		parent = l.pick("layer")
		if img, err := l.s.Image(ctx, l.pick("image")); err == nil && l.r.IntN(2) == 0 {
			parent = string(Chain(img.DiffIDs()))
		}
	}
	o := &CreateLayerOptions{Names: []string{l.pick("layer")}, Parent: parent}
	tar := strings.NewReader(string(l.tars[l.r.IntN(len(l.tars))]))
	var err error
	switch l.r.IntN(3) {
	case 0:
		_, err = l.s.CreateLayerFrom(ctx, o, tar, nil)
	case 1:
		_, err = l.s.CreateLayer(ctx, o)
	case 2:
		_, err = l.s.ApplyLayer(ctx, l.pick("layer"), tar, nil)
	}
	l.do("layer on "+parent, err)
}

// lease takes or ends a lease, or opens or closes a layer.
func (l *life) lease(ctx context.Context) {
	if l.r.IntN(3) == 0 && len(l.opened) > 0 {
		l.do("close layer", l.opened[0].Close())
		l.opened = l.opened[1:]
		return
	}
	if l.r.IntN(3) == 0 && len(l.leases) > 0 {
		l.do("end lease", l.leases[0].Close())
		l.leases = l.leases[1:]
		return
	}
	img, err := l.s.Image(ctx, l.pick("image"))
	if !l.do("find", err) || len(img.Layers) == 0 {
		return
	}
	d := img.DiffIDs()[l.r.IntN(len(img.Layers))]
	if l.r.IntN(2) == 0 {
		o, err := l.s.OpenLayer(d)
		if l.do("open "+string(d), err) {
			l.opened = append(l.opened, o)
		}
		return
	}
	lease, err := l.s.NewLease(ctx, "model")
	must(l.t, err)
	l.leases = append(l.leases, lease)
	_, err = lease.RetainLayer(ctx, string(d))
	l.do("retain "+string(d), err)
}

// removeImage compares a dry run with the real one.
func (l *life) removeImage(ctx context.Context, name string) {
	dry, dryErr := l.s.Remove(ctx, name, &RemoveOptions{DryRun: true, Force: true})
	before := space(l.t, l.s)
	r, err := l.s.Remove(ctx, name, &RemoveOptions{Force: true})
	if !l.do("rmi "+name, err) {
		if dryErr == nil || dryErr.Error() != err.Error() {
			l.t.Errorf("rmi: %v; the dry run said %v", err, dryErr)
		}
		return
	}
	same := slices.Equal(dry.Untagged, r.Untagged) && slices.Equal(dry.Deleted, r.Deleted) && slices.Equal(dry.Layers, r.Layers) && slices.Equal(dry.Records, r.Records)
	if freed := before - space(l.t, l.s); !same || dry.Freed != r.Freed || r.Freed != freed {
		l.t.Errorf("rmi %s: the dry run said %+v, it did %+v and freed %d", name, dry, r, freed)
	}
}

func (l *life) collect(ctx context.Context) {
	dry, err := l.s.GC(ctx, true)
	must(l.t, err)
	before := space(l.t, l.s)
	c, err := l.s.GC(ctx, false)
	l.do("gc", err)
	dry.IndexBytes = c.IndexBytes
	if freed := before - space(l.t, l.s); fmt.Sprint(dry) != fmt.Sprint(c) || c.Bytes != freed {
		l.t.Errorf("the dry run said %+v, gc did %+v and freed %d", dry, c, freed)
	}
}

// end ends all leases and closes what is open, and looks at what is left.
func (l *life) end() {
	for _, lease := range l.leases {
		must(l.t, lease.Close())
	}
	for _, o := range l.opened {
		must(l.t, o.Close())
	}
	if _, err := l.s.CollectPending(l.t.Context()); err != nil {
		l.t.Error(err)
	}
	l.collect(l.t.Context())
	wantExact(l.t, l.s)
	if l.t.Failed() {
		l.t.Fatalf("after\n%s", strings.Join(l.log, "\n"))
	}
	_, err := l.s.Wipe(l.t.Context())
	must(l.t, err)
	wantExact(l.t, l.s)
	for path := range onDisk(l.t, l.s) {
		l.t.Errorf("%s is left after wipe", path)
	}
}
