package deflate

// A spec names a predictor with its settings. The numbers of specs are part of the
// format of corrections: a spec is never changed, only added.
type spec struct {
	id           uint8
	name         string
	predictor    func(w *window) predictor
	unit         int64 // how often it is told whether a hard end is near
	unitsAreHard bool  // the encoder sees no more than the current unit
	restarts     bool  // the encoder begins anew at hard ends,
	dict         int   // remembering so much
}

const softUnit = 32 << 10

var specs = makeSpecs()

func makeSpecs() []spec {
	var all []spec
	add := func(s spec) {
		s.id = uint8(len(all))
		all = append(all, s)
	}
	zlib := []zlibParams{
		{4, 4, 8, 4, true, 15},
		{4, 5, 16, 8, true, 15},
		{4, 6, 32, 32, true, 15},
		{4, 4, 16, 16, false, 15},
		{8, 16, 32, 32, false, 15},
		{8, 16, 128, 128, false, 15},
		{8, 32, 128, 256, false, 15},
		{32, 128, 258, 1024, false, 15},
		{32, 258, 258, 4096, false, 15},
	}
	for i, p := range zlib {
		name := "zlib -" + string(rune('1'+i))
		build := func(w *window) predictor { return newZlibPredictor(w, p) }
		add(spec{name: name, predictor: build, unit: softUnit})
		add(spec{name: name + " in pieces", predictor: build, unit: softUnit, restarts: true, dict: maxDistance})
	}
	goLevels := []goParams{
		{0, 16, 8, 5},
		{0, 32, 32, 6},
		{4, 16, 16, 0},
		{16, 32, 32, 0},
		{16, 128, 128, 0},
		{32, 128, 256, 0},
		{128, 258, 1024, 0},
		{258, 258, 4096, 0},
	}
	for i, p := range goLevels {
		add(spec{
			name: "go -" + string(rune('2'+i)), unit: softUnit,
			predictor: func(w *window) predictor { return newGoPredictor(w, p) },
		})
	}
	return all
}
