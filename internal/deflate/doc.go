// Package deflate takes a gzip stream apart against its plaintext and puts it
// together again, bit for bit: a layer that is kept unpacked can go out with the
// digest with which it came in, without the blob being kept too.
//
//	stats, err := deflate.Analyze(blob, correction)  // the correction is small
//	err = deflate.Reconstruct(plain, correction, w)  // w gets the blob again
//
// The law: for every stream that gunzip accepts, Reconstruct gives back exactly the
// bytes that Analyze was given: members one after another, stored blocks, odd headers
// and whatever follows the last member included. For other streams Analyze returns
// ErrNotGzip. Both stream, in some ten MiB of memory.
//
// # How
//
// A deflate stream says, token by token, whether the next bytes are literal or
// repeated from before. Given the plaintext, an encoder has no other choice to make
// than these, where its blocks end, and how each block's codes are written. So a
// predictor that works like the encoder, and is told after each token what the encoder
// really did, is right nearly always, and only where it is wrong something needs to be
// stored. With the wrong predictor the correction is larger, but the law holds all the
// same. No encoder is ever run: what a library's present version writes does not
// matter, and streams of encoders that nobody has any more are as good as others.
//
// The parts, in the order of the data:
//
//	gunzipper   the stream as events: member, block with tokens and header, trailer
//	predictor   the next token as zlib, gzip, Go … would choose it (see specs)
//	session     the model: codes an event as how it differs from the expected
//	coder       an adaptive binary arithmetic coder, either way
//	streamWriter events as bits
//
// Analyze runs the session to encode, Reconstruct to decode; both ask the predictor
// the same questions in the same order. Which predictor is taken is decided by trying
// all with the first part of the stream.
//
// # Format of a correction
//
//	"dfc" version spec body
//
// The version is a byte; this package reads all versions up to its own. The spec is a
// byte too, the number of a predictor with its settings. The body is arithmetic coded
// and ends with the CRC-32 of the blob and the size of the plaintext. Within a version
// nothing that a session or a predictor does may change, as every step is part of the
// format; testdata holds corrections that must be readable for ever.
package deflate
