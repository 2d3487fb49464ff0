package deflate

// The alphabets of RFC 1951.
const (
	maxLit      = 286 // literals, the end of a block and lengths
	maxDist     = 30
	endOfBlock  = 256
	firstLength = 257
	maxBits     = 15 // of a code
	maxMatch    = 258
	minMatch    = 3
	maxDistance = 32 << 10
)

// lengthBase and lengthExtra belong to the symbols from firstLength on, distBase and
// distExtra to the distance symbols.
var (
	lengthBase = [29]uint16{
		3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
	}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [30]uint16{
		1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
		8193, 12289, 16385, 24577,
	}
	distExtra = [30]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}

	// codeOrder is the order in which a header gives the lengths of its own code.
	codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

	lengthSymbol = makeLengthSymbols()
	distSymbolLo = makeDistSymbols(0)
	distSymbolHi = makeDistSymbols(7)

	fixedLit, fixedDist = makeFixedLengths()
)

func makeLengthSymbols() (t [maxMatch + 1]uint8) {
	for s, base := range lengthBase {
		for l := int(base); l < int(base)+1<<lengthExtra[s] && l <= maxMatch; l++ {
			t[l] = uint8(s)
		}
	}
	return t
}

// makeDistSymbols gives the symbol of (index<<shift)+1.
func makeDistSymbols(shift uint) (t [256]uint8) {
	for i := range t {
		for s, base := range distBase {
			if i<<shift+1 >= int(base) {
				t[i] = uint8(s)
			}
		}
	}
	return t
}

func distSymbol(dist int) uint8 {
	if dist <= 256 {
		return distSymbolLo[dist-1]
	}
	return distSymbolHi[(dist-1)>>7]
}

// makeFixedLengths are the code lengths of blocks without a header. They have two
// symbols in each alphabet that may not be used.
func makeFixedLengths() (lit [288]uint8, dist [32]uint8) {
	for i := range lit {
		switch {
		case i < 144:
			lit[i] = 8
		case i < 256:
			lit[i] = 9
		case i < 280:
			lit[i] = 7
		default:
			lit[i] = 8
		}
	}
	for i := range dist {
		dist[i] = 5
	}
	return lit, dist
}
