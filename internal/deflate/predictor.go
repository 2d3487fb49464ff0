package deflate

// A predictor behaves like a family of encoders: from the plaintext, and from the
// tokens so far, it says which token such an encoder writes next. What it says may
// be wrong, but it must depend on nothing else, and on nothing beyond lookahead:
// Analyze and Reconstruct ask the same questions and must get the same answers.
type predictor interface {
	// restart forgets all before pos but dict bytes, as at the start of a member
	// or where the encoder works on pieces by itself.
	restart(pos int64, dict int)
	// unit says up to where the encoder saw data when it was at start: end, if
	// hard, or else an end that is no concern of its. literals says that there are no
	// matches in the unit; only for specs whose units are hard.
	unit(start, end int64, hard, literals bool)
	// predict returns the length and distance of the match at pos, or length 1 for
	// a literal.
	predict(pos int64) (length, dist int)
	// accept tells the token that was really there, after each predict.
	accept(pos int64, length, dist int)
	// skip passes over n bytes that were stored.
	skip(pos int64, n int)
	// rank returns how many nearer matches of at least that length there are in
	// what the predictor remembers, and at the distance that has so many; -1 and 0
	// when it does not know.
	rank(pos int64, length, dist int) int
	at(pos int64, length, rank int) int
}

// match is a candidate: length 0 is none.
type match struct{ length, dist int }
