package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/layerfs/layerfs/internal/treetest"
)

// twenty makes 20 images of 2,000 files, of which 3 % differ from image to image.
func (b *bench) twenty() (string, error) {
	var list []manyImage
	for n := range 20 {
		files := map[string]string{}
		for i := range 2000 {
			seed := uint64(i)
			if i%33 == 0 {
				seed = uint64(i*1000 + n)
			}
			rnd := rand.New(rand.NewPCG(seed, 2))
			data := make([]byte, 1024+rnd.IntN(30000))
			for j := range data {
				data[j] = byte(rnd.Uint32())
			}
			files[fmt.Sprintf("srv/app/m%d/f%d.bin", i%40, i)] = string(data)
		}
		list = append(list, manyImage{fmt.Sprintf("localhost/twenty:%d", n), [][]byte{tarOf(files)}})
	}
	return b.dockerArchive("twenty.tar", list)
}

// uniqueOf sums the different contents in all images of an archive.
func (b *bench) uniqueOf(archive string) (int64, error) {
	work, err := b.dir("tars")
	if err != nil {
		return 0, err
	}
	images, err := treetest.ReadArchive(archive, work)
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	var tars []string
	for _, img := range images {
		for _, t := range img.Tars {
			if !seen[t] {
				seen[t] = true
				tars = append(tars, t)
			}
		}
	}
	return uniqueBytes(tars...)
}
