package deflate

import "math/bits"

// newProbs returns n estimates that know nothing yet.
func newProbs(n int) []prob {
	p := make([]prob, n)
	for i := range p {
		p[i] = probStart
	}
	return p
}

// A symbolModel codes numbers below 1<<bits, most significant bit first, each bit in
// the light of those above it.
type symbolModel struct {
	bits  uint
	probs []prob
}

func newSymbolModel(n uint) symbolModel {
	return symbolModel{bits: n, probs: newProbs(1 << n)}
}

func (m *symbolModel) code(c *coder, v uint32) uint32 {
	node := uint32(1)
	for i := int(m.bits) - 1; i >= 0; i-- {
		node = node<<1 | c.bit(&m.probs[node], v>>uint(i)&1)
	}
	return node - 1<<m.bits
}

// A numberModel codes any number: how many bits it has, then its top bits with a
// model and the others as they are.
type numberModel struct {
	width symbolModel
	top   []prob
}

func newNumberModel() numberModel {
	return numberModel{width: newSymbolModel(6), top: newProbs(64 * 8)}
}

// modelledBits is how many bits below the leading one have a model.
const modelledBits = 3

func (m *numberModel) code(c *coder, v uint64) uint64 {
	v++
	width := uint(m.width.code(c, uint32(bits.Len64(v)-1)&63))
	out, node := uint64(1), uint(1)
	for i := int(width) - 1; i >= 0; i-- {
		b := uint32(v>>uint(i)) & 1
		if int(width)-1-i < modelledBits {
			b = c.bit(&m.top[width*8+node], b)
			node = node<<1 | uint(b)
		} else {
			b = uint32(c.raw(uint64(b), 1))
		}
		out = out<<1 | uint64(b)
	}
	return out - 1
}
