package deflate

// A token is a literal byte, or length<<16 | distance. oddLength marks the length
// 258 written with the code of 227 to 257, which nobody should do but one may.
type token = uint32

const (
	oddLength  token = 1 << 31
	lengthMask       = 1<<9 - 1
)

func matchToken(length, dist int) token { return token(length)<<16 | token(dist) }

// tokenLength is how many bytes of plaintext a token stands for.
func tokenLength(t token) int {
	if t < 1<<16 {
		return 1
	}
	return int(t >> 16 & lengthMask)
}

// Kinds of events, and of blocks as RFC 1951 numbers them.
type eventKind uint8

const (
	evMember   eventKind = iota // a gzip member begins
	evBlock                     // a block or a piece of one
	evTrailer                   // a member ends
	evTrailing                  // bytes after the last member
	evEnd                       // nothing more

	blockStored  = 0
	blockFixed   = 1
	blockDynamic = 2
)

// An event is what a gzip stream is made of, in order.
type event struct {
	kind eventKind

	// raw is the header of a member, or trailing bytes.
	raw []byte

	// A block may come in pieces, so that memory stays bounded.
	block       uint8
	final       bool
	first, last bool
	tokens      []token
	start       int64   // position in the plaintext
	size        int     // bytes of plaintext
	header      *header // of a dynamic block

	// pad is what fills the last byte before stored bytes or the trailer.
	pad byte
}

// A header describes the codes of a dynamic block exactly as it was written.
type header struct {
	lit, dist  int // how many lengths there are of each alphabet
	lengths    [maxLit + 32]uint8
	symbols    []headerSymbol // how the lengths were written
	codes      int            // how many lengths of the header's own code
	codeLength [19]uint8
}

// A headerSymbol is a length, or the repetition of one.
type headerSymbol struct {
	symbol uint8
	extra  uint8 // bits that follow it
}

// cleared returns h, or a new header, without anything in it.
func cleared(h *header) *header {
	if h == nil {
		return new(header)
	}
	*h = header{symbols: h.symbols[:0]}
	return h
}
