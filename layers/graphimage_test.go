package layers

import (
	"errors"
	"testing"

	"github.com/layerfs/layerfs/layers/graphroot"
)

// An image is found by what podman calls it, and only then by its ID.
func TestFindGraphImage(t *testing.T) {
	images := []graphroot.Image{
		{ID: "abc111", Names: []string{"docker.io/library/app:1", "not a name"}},
		{ID: "abc222", Names: []string{"localhost/built:latest", "example.com/x:1"}},
		{ID: "dead00", Names: []string{"localhost/abc111:latest"}},
		{ID: "beef00"},
	}
	for ref, want := range map[string][2]string{
		"app:1":           {"abc111", "docker.io/library/app:1"},
		"built":           {"abc222", "localhost/built:latest"},
		"example.com/x:1": {"abc222", "example.com/x:1"},
		"abc111":          {"dead00", "localhost/abc111:latest"},
		"@abc111":         {"abc111", ""},
		"app@abc222":      {"abc222", ""},
		"beef":            {"beef00", ""},
	} {
		img, name, err := findGraphImage(images, ref)
		if err != nil || img.ID != want[0] || name != want[1] {
			t.Errorf("%s: got %s %q, %v; want %q", ref, img.ID, name, err, want)
		}
	}
	for ref, want := range map[string]error{
		"@abc": ErrAmbiguous, "@": ErrImageUnknown, "@be": ErrImageUnknown, "app:2": ErrImageUnknown, "": ErrImageUnknown,
	} {
		if img, _, err := findGraphImage(images, ref); !errors.Is(err, want) {
			t.Errorf("%q: got %s, %v; want %v", ref, img.ID, err, want)
		}
	}
}
