package deflate

// writeRuns appends the symbols by which encoders write code lengths: repetitions
// as long as they can be. Some let a run go on from the literals to the distances
// (joined), some do not.
func writeRuns(symbols []headerSymbol, h *header, joined bool) []headerSymbol {
	if joined {
		return appendRuns(symbols, h.lengths[:h.lit+h.dist])
	}
	return appendRuns(appendRuns(symbols, h.litLengths()), h.distLengths())
}

func appendRuns(symbols []headerSymbol, lengths []uint8) []headerSymbol {
	for len(lengths) > 0 {
		value, run := lengths[0], 1
		for run < len(lengths) && lengths[run] == value {
			run++
		}
		lengths = lengths[run:]
		if value == 0 {
			for ; run >= 11; run -= min(run, 138) {
				symbols = append(symbols, headerSymbol{18, uint8(min(run, 138) - 11)})
			}
			if run >= 3 {
				symbols = append(symbols, headerSymbol{17, uint8(run - 3)})
				run = 0
			}
		} else {
			symbols = append(symbols, headerSymbol{symbol: value})
			for run--; run >= 3; run -= min(run, 6) {
				symbols = append(symbols, headerSymbol{16, uint8(min(run, 6) - 3)})
			}
		}
		for ; run > 0; run-- {
			symbols = append(symbols, headerSymbol{symbol: value})
		}
	}
	return symbols
}

// usedCodes is how many lengths of the header's own code must be written.
func usedCodes(lengths *[19]uint8) int {
	n := len(codeOrder)
	for n > 4 && lengths[codeOrder[n-1]] == 0 {
		n--
	}
	return n
}

// usedLengths is the length of an alphabet without the unused symbols at its end.
func usedLengths(lengths []uint8, least int) int {
	n := len(lengths)
	for n > least && lengths[n-1] == 0 {
		n--
	}
	return n
}
