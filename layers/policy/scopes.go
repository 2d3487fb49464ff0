package policy

import (
	"path/filepath"
	"strings"

	"go.podman.io/image/v5/docker/reference"
)

// DockerScopes are what a policy may call an image in a registry: the reference, its
// repository, what is above it down to the registry, and the registry's domains as
// *.example.com.
func DockerScopes(named reference.Named) []string {
	out := []string{named.String()}
	name := named.Name()
	for {
		out = append(out, name)
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	host, _, _ := strings.Cut(name, ":")
	for {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return out
		}
		out = append(out, "*."+rest)
		host = rest
	}
}

// PathScopes are what a policy may call an image in a file or directory: its path with
// the image's own name, its path, and the directories above it. A docker-archive has
// none.
func PathScopes(transport, path, ref string) []string {
	if transport == "docker-archive" {
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil // then only what is said of the whole transport counts
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	var out []string
	if transport != "dir" {
		out = append(out, abs+":"+ref)
	}
	for ; abs != "/" && abs != "."; abs = filepath.Dir(abs) {
		out = append(out, abs)
	}
	return out
}

// StorageScopes are what a policy may call an image in a graph root with the overlay
// driver: the graph root with the image's name, or @ and its ID when it is asked for by
// that, with what is above its repository, and the graph root.
func StorageScopes(root, name, id string) []string {
	store := "[overlay@" + root + "]"
	var out []string
	if name == "" {
		out = append(out, store+"@"+id)
	} else if named, err := reference.ParseNormalizedNamed(name); err == nil {
		out = append(out, store+named.String())
		for repository := named.Name(); ; {
			out = append(out, store+repository)
			i := strings.LastIndexByte(repository, '/')
			if i < 0 {
				break
			}
			repository = repository[:i]
		}
	}
	return append(out, store, "["+root+"]")
}
