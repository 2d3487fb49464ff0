package layers_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerfs/layerfs/layers"
)

// A store that reads the images of another one, which it never changes.
func Example_additional() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "layerfs-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	shared, err := layers.Open(filepath.Join(dir, "shared"), nil)
	if err != nil {
		log.Fatal(err)
	}
	// A tar of nothing: two blocks of zeros.
	if _, err := shared.Import(ctx, strings.NewReader(strings.Repeat("\x00", 1024)), &layers.ImportOptions{Names: []string{"empty:1"}}); err != nil {
		log.Fatal(err)
	}
	defer shared.Close()

	own, err := layers.Open(filepath.Join(dir, "own"), &layers.Options{Additional: []string{shared.Root()}})
	if err != nil {
		log.Fatal(err)
	}
	defer own.Close()
	img, err := own.Image(ctx, "empty:1")
	if err != nil {
		log.Fatal(err)
	}
	_, err = own.Remove(ctx, "empty:1", nil)
	fmt.Println(img.Names[0].Name, img.ReadOnly(), errors.Is(err, layers.ErrReadOnly))
	// Output: docker.io/library/empty:1 true true
}
