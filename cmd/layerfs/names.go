package main

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// imageFilters takes the patterns out of --filter reference=PATTERN, and the layer out
// of --filter layer=LAYER.
func imageFilters(filters []string) (patterns []string, layer string, err error) {
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case ok && key == "reference" && value != "":
			patterns = append(patterns, value)
		case ok && key == "layer" && value != "" && layer == "":
			layer = value
		default:
			return nil, "", usagef("--filter %q: want reference=PATTERN, or once layer=LAYER", f)
		}
	}
	return patterns, layer, nil
}

// matchName says whether a normalized name is what the user's pattern means: the
// name or its repository, in short or in full, or a shell pattern for one of them.
func matchName(pattern, name string) bool {
	repository, _, _ := layers.SplitName(name)
	if normal, err := layers.NormalizeName(pattern); err == nil {
		if normal == name {
			return true
		}
		// Without a tag a pattern means the whole repository.
		if r, tag, _ := layers.SplitName(normal); tag == "latest" && !strings.HasSuffix(pattern, ":latest") && r == repository {
			return true
		}
	}
	for _, form := range []string{name, repository, familiar(name), familiar(repository)} {
		if ok, err := path.Match(pattern, form); err == nil && ok {
			return true
		}
		// A pattern may leave out leading directories, as with podman.
		for rest := form; ; {
			_, after, ok := strings.Cut(rest, "/")
			if !ok {
				break
			}
			if ok, err := path.Match(pattern, after); err == nil && ok {
				return true
			}
			rest = after
		}
	}
	return false
}

// familiar shortens a normalized name to what a user would type.
func familiar(name string) string {
	name = strings.TrimPrefix(name, "docker.io/")
	return strings.TrimPrefix(name, "library/")
}

// completeNames offers the names of the images to the completion of a shell.
func completeNames(e *env) cli.BashCompleteFunc {
	return completeWith(e, func(ctx context.Context, st *layers.Store) (names []string, err error) {
		list, err := st.Images(ctx)
		for _, img := range list {
			for _, n := range img.Names {
				names = append(names, familiar(n.Name))
			}
		}
		return names, err
	})
}

// completeContainers offers the names of the containers.
func completeContainers(e *env) cli.BashCompleteFunc {
	return completeWith(e, func(ctx context.Context, st *layers.Store) (names []string, err error) {
		list, err := st.Containers(ctx, nil)
		for i := range list {
			names = append(names, list[i].Name())
		}
		return names, err
	})
}

// completeWith offers words that the store has, after the flags of the verb. What goes
// wrong is not said: nobody wants to read it amid what he types.
func completeWith(e *env, words func(context.Context, *layers.Store) ([]string, error)) cli.BashCompleteFunc {
	return func(c *cli.Context) {
		defer cli.DefaultCompleteWithFlags(c.Command)(c)
		// The library does not call before for a completion.
		if e.configure(c) != nil {
			return
		}
		st, err := e.readStore()
		if err != nil {
			return
		}
		defer st.Close()
		list, err := words(c.Context, st)
		if err != nil {
			return
		}
		for _, word := range list {
			fmt.Fprintln(c.App.Writer, word)
		}
	}
}
