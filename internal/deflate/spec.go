package deflate

// A spec names a predictor with its settings. The numbers of specs are part of the
// format of corrections: a spec is never changed, only added.
type spec struct {
	id           uint8
	name         string
	ofGo         bool // one of Go's libraries
	cheap        bool // trying it costs nothing
	predictor    func(w *window) predictor
	unit         int64 // how often it is told whether a hard end is near
	unitsAreHard bool  // the encoder sees no more than the current unit
	restarts     bool  // the encoder begins anew at hard ends,
	dict         int   // remembering so much
}

const (
	softUnit  = 32 << 10
	goMargin  = 15
	kpMargin  = 11
	pgzipDict = 16 << 10
)

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
		add(spec{name: name + " in pieces", predictor: build, unit: softUnit, restarts: true, dict: maxDistance})
		add(spec{name: name, predictor: build, unit: softUnit})
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
			name: "go -" + string(rune('2'+i)), ofGo: true, unit: softUnit,
			predictor: func(w *window) predictor { return newGoPredictor(w, p) },
		})
	}
	fast := func(name string, margin int, level func() fastLevel) spec {
		return spec{name: name, ofGo: true, unit: fastUnit, unitsAreHard: true, predictor: func(w *window) predictor {
			return &fastPredictor{win: w, level: level(), margin: margin, extend: margin == kpMargin}
		}}
	}
	add(fast("go -1", goMargin, func() fastLevel { return new(goFast) }))
	for _, l := range []struct {
		name string
		make func() fastLevel
	}{
		{"klauspost -1", func() fastLevel { return &kpPairs{table: make([]uint32, 1<<15), bits: 15} }},
		{"klauspost -2", func() fastLevel { return &kpPairs{table: make([]uint32, 1<<17), bits: 17, dense: true} }},
		{"klauspost -3", func() fastLevel { return new(kpTwo) }},
		{"klauspost -4", func() fastLevel { return new(kpLong) }},
		{"klauspost -4 since 1.18", func() fastLevel { return &kpLong{astray: true} }},
		{"klauspost -5", func() fastLevel { return new(kpLongTwo) }},
		{"klauspost -6", func() fastLevel { return &kpLongTwo{six: true} }},
	} {
		s, pieces := fast(l.name, kpMargin, l.make), fast("pgzip: "+l.name, kpMargin, l.make)
		pieces.restarts, pieces.dict = true, pgzipDict
		add(pieces)
		add(s)
	}
	add(spec{name: "literals only", predictor: func(*window) predictor { return literals{} }, unit: softUnit, cheap: true})
	return all
}
