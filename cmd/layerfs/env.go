package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/internal/control"
)

func envCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "env", Category: "Mounts",
		Usage:     "let podman, buildah and skopeo use the images of a mount",
		UsageText: "layerfs env podman|buildah|skopeo [DIR]",
		Description: `Prints the line for a shell that makes the images of the mount on DIR, or of the only
mount of the store, additional read-only images of podman and its relatives: they run,
build on, inspect and push them, and copy nothing. It holds for what is started from
that shell, as root and as an ordinary user; podman ignores it when it is called with
--root. Images show up and go away as in the mount. The variable is STORAGE_OPTS, which
adds to your storage.conf, or where there is none CONTAINERS_STORAGE_CONF.

An ordinary user needs a mount of his own, or one of root with --idmap. The kernel takes
the paths of all layers of a container in one page: the longest image that works has
about 4000/(length of DIR + 28) layers, so mount on a short path. Image volumes and
"podman image mount" do not know additional images; use DIR/images/.../rootfs there.

Examples:
   eval $(layerfs env podman)
   podman run --rm alpine cat /etc/os-release
   podman --storage-opt additionalimagestore=$HOME/layerfs/podman images`,
		BashComplete: func(c *cli.Context) {
			for _, name := range envTools {
				fmt.Fprintln(c.App.Writer, name)
			}
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "podman, buildah or skopeo"); err != nil {
				return err
			}
			return e.printEnv(c.Args().First(), c.Args().Get(1))
		},
	}
}

// envTools are the programs that read STORAGE_OPTS.
var envTools = []string{"podman", "buildah", "skopeo"}

// printEnv prints the line for the shell.
func (e *env) printEnv(tool, dir string) error {
	if !slices.Contains(envTools, tool) {
		return usagef("%q: want %s", tool, strings.Join(envTools, ", "))
	}
	dir, err := e.wholeMount(dir)
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "podman")
	if strings.ContainsAny(root, ",:") {
		return usagef("%s: %s cannot use a path with a comma or a colon; mount somewhere else", root, tool)
	}
	if _, err := os.Stat(filepath.Join(root, "overlay-images")); err != nil {
		return fmt.Errorf("%s shows no images for %s: %w", dir, tool, err)
	}
	line := "STORAGE_OPTS=" + shellQuote("additionalimagestore="+root)
	if !containersConfigured() {
		conf, err := e.containersConfig(root)
		if err != nil {
			return err
		}
		line = "CONTAINERS_STORAGE_CONF=" + shellQuote(conf)
	}
	_, err = fmt.Fprintln(e.stdout, "export "+line)
	return err
}

// containersConfigured reports whether podman finds a storage.conf. Without any it
// does not look at STORAGE_OPTS.
func containersConfigured() bool {
	files := []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"}
	if os.Geteuid() != 0 {
		dir := os.Getenv("XDG_CONFIG_HOME")
		if dir == "" {
			dir = filepath.Join(os.Getenv("HOME"), ".config")
		}
		files = []string{filepath.Join(dir, "containers/storage.conf")}
	}
	if own := os.Getenv("CONTAINERS_STORAGE_CONF"); own != "" {
		files = []string{own}
	}
	return slices.ContainsFunc(files, func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// containersConfig writes a storage.conf with podman's own defaults and the additional
// image store, and returns its path.
func (e *env) containersConfig(root string) (string, error) {
	runroot, err := e.runrootDir()
	if err != nil {
		return "", err
	}
	graphroot, containersRun := containersDirs()
	text := fmt.Sprintf("# Made by layerfs env.\n[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n[storage.options]\nadditionalimagestores = [%q]\n",
		graphroot, containersRun, root)
	sum := sha256.Sum256([]byte(root))
	path := filepath.Join(runroot, "env", hex.EncodeToString(sum[:8])+".conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// wholeMount finds the mount that is named, or the only one of the whole store.
func (e *env) wholeMount(dir string) (string, error) {
	reg, err := e.registry()
	if err != nil {
		return "", err
	}
	if dir != "" {
		rec, err := reg.Find(resolveMountpoint(dir))
		return rec.Mountpoint, err
	}
	root, err := e.storeRoot()
	if err != nil {
		return "", err
	}
	records, err := reg.Mounts()
	if err != nil {
		return "", err
	}
	var found []string
	for _, r := range records {
		if r.Image == "" && r.Store == root {
			found = append(found, r.Mountpoint)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: no mount shows the store %s; use layerfs mount DIR", control.ErrNotMounted, root)
	case 1:
		return found[0], nil
	}
	return "", usagef("the store is mounted on %s; say which", strings.Join(found, ", "))
}

// shellQuote quotes a word for a shell where that is needed.
func shellQuote(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=@") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// containersDirs are the directories that podman uses where nothing is configured.
func containersDirs() (graphroot, runroot string) {
	uid := os.Geteuid()
	if uid == 0 {
		return "/var/lib/containers/storage", "/run/containers/storage"
	}
	data, run := os.Getenv("XDG_DATA_HOME"), os.Getenv("XDG_RUNTIME_DIR")
	if data == "" {
		data = filepath.Join(os.Getenv("HOME"), ".local/share")
	}
	if run == "" {
		run = fmt.Sprintf("/run/user/%d", uid)
		if _, err := os.Stat(run); err != nil {
			run = fmt.Sprintf("/tmp/podman-run-%d", uid)
		}
	}
	return filepath.Join(data, "containers/storage"), filepath.Join(run, "containers")
}
