package layers

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/layerfs/layerfs/index"
)

var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// checkContainerName accepts what podman and docker accept, and what can be a file
// name. An ID is no name: it would hide the container that has the ID.
func checkContainerName(name string) error {
	if !containerName.MatchString(name) || len(name) > 255 {
		return fmt.Errorf("%w: %q; a container's name has letters, digits and _ . - and begins with a letter or digit", ErrInvalidName, name)
	}
	if isHex(name) && len(name) == 64 {
		return fmt.Errorf("%w: %q has the form of an ID", ErrInvalidName, name)
	}
	return nil
}

// maxLabel limits the key and the value of a label together.
const maxLabel = 4096

// checkLabels refuses labels that JSON or a filter KEY=VALUE could not hold.
func checkLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		switch {
		case key == "":
			return fmt.Errorf("%w: the key is empty", ErrInvalidLabel)
		case strings.ContainsRune(key, '='):
			return fmt.Errorf("%w: the key %q has a '=' in it", ErrInvalidLabel, key)
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return fmt.Errorf("%w: %q is no UTF-8 text", ErrInvalidLabel, key+"="+value)
		case len(key)+len(value) > maxLabel:
			return fmt.Errorf("%w: %.20q… is longer than %d bytes", ErrInvalidLabel, key, maxLabel)
		}
	}
	return nil
}

func checkMetadata(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%w: metadata is no UTF-8 text; keep other bytes as big data", ErrInvalidName)
	}
	return nil
}

// The parts of generated names.
var (
	qualities = strings.Fields("amber brisk calm clear cosy deft eager early fair fleet gentle glad green hardy keen kind light lively lucid merry mild neat noble plain quick quiet ready silver steady sunny swift tidy")
	things    = strings.Fields("acorn alder badger beech birch brook cedar clover comet crane dune falcon fern finch gull harbor hazel heron lark linden lynx maple meadow otter pine plover raven reed sparrow spruce tern willow")
)

// freeName makes a name that no container has.
func freeName(tx *index.Tx) ([]string, error) {
	for try := range 1000 {
		name := qualities[rand.IntN(len(qualities))] + "_" + things[rand.IntN(len(things))]
		if try >= 10 {
			name = fmt.Sprintf("%s%d", name, rand.IntN(1_000_000))
		}
		_, err := tx.ContainerByName(name)
		if errors.Is(err, index.ErrNotFound) {
			return []string{name}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: no free name was found; give one", ErrDuplicateName)
}
