package mounttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// soakTime is how long the soak works as each account; "make soak" sets it for hours.
func soakTime(t *testing.T) time.Duration {
	text, set := os.LookupEnv("LAYERFS_TEST_SOAK")
	if !set {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("LAYERFS_TEST_SOAK: %v", err)
	}
	return d
}

// TestSoak lets processes work in container mounts and read image mounts at random, for LAYERFS_TEST_SOAK (5s),
// while images are loaded, removed and collected beside them. No operation ends but as it should, what is read is
// what was written, no serving process grows, and everything unmounts.
func TestSoak(t *testing.T) {
	d := soakTime(t)
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		k := newSoak(t, a)
		k.phase(1, d/4)
		before := k.sample()
		k.phase(2, d/2)
		k.compare(before, k.sample())
		k.phase(3, d/4)
		k.finish()
	})
}

// A soak is one store with its mounts.
type soak struct {
	*store
	images string      // archives that the store's user can read
	mnt    string      // the whole store
	image  string      // rootfs that is read, with what it holds in the file list
	list   string      // see readerFile
	places []soakPlace // where containers are worked in
	worker string      // the test program, where the account may run it
	seed   uint64
}

// A soakPlace is a container's tree.
type soakPlace struct {
	what, dir string
	mount     string   // mount point
	args      []string // with which it is mounted
}

// soakArchives are what is loaded and removed beside the work.
var soakArchives = []string{"alpine.docker.tar", "alpine.zstd3.oci", "alpine.oci.tar", "mini-debian.oci.tar"}

func newSoak(t *testing.T, a *testenv.Account) *soak {
	k := &soak{store: newStore(t, a), seed: uint64(time.Now().UnixNano())}
	t.Logf("seed %d", k.seed)
	k.images = filepath.Join(testenv.Shared(t), "images")
	if a != nil {
		k.images = a.TempDir(t)
		for _, name := range soakArchives {
			copyTree(t, filepath.Join(testenv.Shared(t), "images", name), k.images)
		}
	}
	k.copyWorker()
	name := k.load("--name", "localhost/read:1", "-i", filepath.Join(k.images, "mini-debian.oci.tar"))
	k.loadStressImage()
	k.mnt = k.mount()
	k.image = filepath.Join(imageDir(k.mnt, name), "rootfs")
	k.list = k.listFiles(k.take(k.image))

	k.ok("create", "--name", "beside", stressImage)
	k.places = append(k.places, soakPlace{what: "container of the store's mount", dir: filepath.Join(k.mnt, "containers/beside/rootfs"), mount: k.mnt})
	drivers := []string{"fuse"}
	if a == nil && testenv.Have("overlayfs") == nil {
		drivers = append(drivers, "overlay")
	}
	for _, driver := range drivers {
		k.ok("create", "--name", driver, stressImage)
		dir := testenv.Mountpoint(t, a)
		p := soakPlace{what: "container through " + driver, dir: dir, mount: dir, args: []string{"--container", driver, "--driver", driver}}
		k.mountAt(dir, p.args...)
		k.places = append(k.places, p)
	}
	for _, p := range k.places {
		k.appears(p.dir)
	}
	return k
}

// appears is store.appears for what only the store's user may look at.
func (k *soak) appears(path string) {
	k.t.Helper()
	if err := as(k.account, func() error { k.store.appears(path); return nil }); err != nil {
		k.t.Fatal(err)
	}
}

// copyWorker puts the test program where an ordinary user may run it.
func (k *soak) copyWorker() {
	k.t.Helper()
	k.worker = filepath.Join(filepath.Dir(program), "worker")
	if _, err := os.Stat(k.worker); err == nil {
		return
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		k.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(k.worker, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		k.t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		k.t.Fatal(err)
	}
}

// stressImage is the image of the containers: its names are those that operations use.
const stressImage = "localhost/stress:1"

func (k *soak) loadStressImage() {
	k.t.Helper()
	low := newTar().dir("work", 0o777).dir("fsx", 0o777).file("fsx/lower", string(pattern(0, 200_000)))
	for _, a := range stressNames {
		low.dir("work/"+a, 0o777)
		for i, b := range stressNames {
			switch name := "work/" + a + "/" + b; i % 4 {
			case 0:
				low.dir(name, 0o777).file(name+"/a", string(pattern(0, 5000))).file(name+"/b", string(pattern(0, 100_000)))
			case 1, 2:
				low.file(name, string(pattern(0, 1000*i)))
			default:
				low.link(name, "work/"+a+"/"+stressNames[i-1])
			}
		}
	}
	top := newTar().file("work/a/.wh.b", "").file("work/b/c", string(pattern(0, 70_000))).symlink("work/c/d", "../a")
	archive, _ := imageOf(k.t, layersOf(low, top)...)
	if k.account != nil {
		t, _ := k.t.(*testing.T)
		archive = readable(t, archive, *k.account)
	}
	k.load("--name", stressImage, "-i", archive)
}

// phase works for a while.
func (k *soak) phase(number int, d time.Duration) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Minute)
	defer cancel()
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	start := func(job soakJob) {
		k.seed++
		job.Seed, job.For, job.First = k.seed, d, number == 1
		wg.Go(func() {
			for name, n := range k.process(ctx, job) {
				mu.Lock()
				counts[name] += n
				mu.Unlock()
			}
		})
	}
	for _, p := range k.places {
		start(soakJob{Kind: "fsx", Dir: filepath.Join(p.dir, "fsx"), What: p.what})
		for range 2 {
			start(soakJob{Kind: "stress", Dir: filepath.Join(p.dir, "work"), What: p.what})
		}
	}
	for range 2 {
		start(soakJob{Kind: "read", Dir: k.image, List: k.list, What: "image"})
	}
	images := k.images
	for i := range 2 {
		r := rand.New(rand.NewPCG(k.seed, uint64(i)))
		wg.Go(func() {
			for time.Now().Before(end) {
				args := soakCommand(r, images)
				res := k.run(args...)
				mu.Lock()
				counts["command "+args[0]]++
				mu.Unlock()
				if res.code != 0 && res.code != 3 && res.code != 4 { // not found, in use
					k.t.Errorf("%v: %v", args, res)
				}
			}
		})
	}
	wg.Go(func() { k.kills(end) })
	wg.Wait()
	total := 0
	var text []string
	for _, name := range sorted(maps.Keys(counts)) {
		total += counts[name]
		text = append(text, fmt.Sprintf("%s %d", name, counts[name]))
	}
	k.t.Logf("phase %d, %v: %d operations: %s", number, d, total, strings.Join(text, ", "))
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// kills kills the serving processes with SIGKILL, one after the other, every LAYERFS_TEST_SOAK_KILL; nothing when
// that is unset. What the work meets then is what the mounts promise.
func (k *soak) kills(end time.Time) {
	text := os.Getenv("LAYERFS_TEST_SOAK_KILL")
	if text == "" {
		return
	}
	every, err := time.ParseDuration(text)
	if err != nil || every <= 0 {
		k.t.Errorf("LAYERFS_TEST_SOAK_KILL: %q is no duration: %v", text, err)
		return
	}
	for i := 0; time.Now().Add(every).Before(end); i++ {
		time.Sleep(every)
		if pid := k.server(k.places[i%len(k.places)].mount); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// soakCommand is someCommand, and more that works on containers and the whole store.
func soakCommand(r *rand.Rand, images string) []string {
	box := fmt.Sprintf("box%d", r.IntN(3))
	more := [][]string{
		{"commit", box, fmt.Sprintf("localhost/tag:%d", r.IntN(3))},
		{"changes", box},
		{"export", "-o", "/dev/null", box},
		{"diff", "-o", "/dev/null", "localhost/tag:1"},
		{"du"},
		{"history", "localhost/img:1"},
		{"inspect", box},
		{"save", "-o", "/dev/null", "localhost/img:2"},
		{"gc"},
		{"find", "--name", "passwd"},
	}
	if i := r.IntN(3 * len(more)); i < len(more) {
		return more[i]
	}
	return someCommand(r, images)
}

// process runs one worker and returns how often it did what.
func (k *soak) process(ctx context.Context, job soakJob) map[string]int {
	cmd := exec.CommandContext(ctx, k.worker)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), soakVariable + "=" + string(mustJSON(job))}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // says where it hangs
	cmd.WaitDelay = 5 * time.Second
	if k.account != nil {
		k.account.Apply(cmd)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("it hangs: %w", err)
	}
	counts := map[string]int{}
	if err == nil {
		err = json.Unmarshal(stdout.Bytes(), &counts)
	}
	if err != nil {
		k.t.Errorf("%s in the %s, seed %d: %v\n%.4000s", job.Kind, job.What, job.Seed, err, stderr.String())
	}
	return counts
}

// finish unmounts the containers, wants in them what they held when they are mounted again, and checks the store.
func (k *soak) finish() {
	k.t.Helper()
	for _, p := range k.places {
		before := k.take(p.dir)
		if p.args == nil {
			report(k.t, p.what, before.Problems)
			continue
		}
		if p.args[3] == "fuse" { // the kernel lists other inode numbers than it shows where directories were renamed
			report(k.t, p.what, before.Problems)
		}
		k.ok("umount", p.mount)
		k.mountAt(p.mount, p.args...)
		after := k.take(p.dir)
		report(k.t, p.what+": mounted again", treetest.Diff(before, after, &treetest.Options{Entry: settled}))
		k.ok("umount", p.mount)
	}
	k.ok("umount", k.mnt)
	k.ok("gc")
	k.checkClean()
	var left []struct{ Mountpoint string }
	if k.json(&left, "mounts", "--format", "json"); len(left) > 0 {
		k.t.Errorf("still mounted: %v", left)
	}
	if err := as(k.account, func() error { k.snapshot(); return nil }); err != nil {
		k.t.Error(err)
	}
}

// settled leaves out what a mount may show differently when it is mounted again: links that only the image counts,
// and the time of a write that the kernel had kept.
func settled(path string, want, got *treetest.Entry) {
	sameLinks(path, want, got)
	if want != nil && got != nil && want.Kind == treetest.Regular && got.Mtime.Sub(want.Mtime).Abs() < time.Second {
		got.Mtime = want.Mtime
	}
}
