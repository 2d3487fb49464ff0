package layers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
)

// others finds the containers, layer records and leases that keep it.
func (a *asker) others(ctx context.Context) error {
	if a.out.Thing == ThingUnused || a.out.Thing == ThingManifest {
		return nil
	}
	needs := func(stack []digest.Digest, image digest.Digest) bool {
		if a.out.Thing == ThingImage {
			return image == a.out.Digest
		}
		return slices.ContainsFunc(a.stack, func(d DiffID) bool { return slices.Contains(stack, digest.Digest(d)) })
	}
	var found []string
	err := a.st.view(ctx, func(tx *index.Tx) error {
		found = found[:0]
		err := tx.EachContainer(func(c index.Container) error {
			if needs(c.Layers, c.Image) {
				found = append(found, "container "+strings.Join(append(slices.Clone(c.Names), c.ID[:12]), " "))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.EachLayerRecord(func(r index.LayerRecord) error {
			if needs(r.Layers, "") {
				found = append(found, "layer record "+strings.Join(append(slices.Clone(r.Names), r.ID[:12]), " "))
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	leases, err := a.st.base().Leases(ctx)
	if a.root != "" && errors.Is(err, fs.ErrPermission) {
		err = nil // leases of somebody else need not be readable
	}
	for _, l := range leases {
		var stack []digest.Digest
		for _, d := range l.Layers {
			stack = append(stack, digest.Digest(d))
		}
		if needs(stack, "") || a.out.Thing == ThingImage && slices.Contains(l.Images, a.out.Digest) {
			found = append(found, "the lease of "+l.String())
		}
	}
	for _, text := range found {
		if a.root != "" {
			text += " of " + a.root
		}
		a.out.Others = append(a.out.Others, text)
	}
	return err
}

// holders lists the other processes that have a lock on the file, as /proc/locks
// tells; where that cannot be read there are none.
func holders(path string) []Process {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	var out []Process
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 12: FLOCK  ADVISORY  READ 4711 08:01:131 0 EOF
		words := strings.Fields(lines.Text())
		var pid int
		if len(words) < 6 || words[1] != "FLOCK" || words[5] != file {
			continue
		}
		if _, err := fmt.Sscan(words[4], &pid); err != nil || pid <= 0 || pid == os.Getpid() {
			continue
		}
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
		command := strings.TrimSpace(strings.ReplaceAll(string(raw), "\x00", " "))
		out = append(out, Process{PID: pid, Command: command})
	}
	return out
}
