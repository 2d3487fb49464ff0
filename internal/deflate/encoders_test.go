package deflate

import (
	"bytes"
	"io"
	"os/exec"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"

	"github.com/layerfs/layerfs/internal/testenv"
)

// expectSmall checks the law and that hardly anything was mispredicted, which is what
// the predictors of this family are for.
func expectSmall(t *testing.T, blob, plain []byte, perMille int64) {
	t.Helper()
	s := checkLaw(t, blob, plain)
	t.Logf("blob %d, correction %d, %s, %d of %d mispredicted", len(blob), s.CorrectionSize, s.Predictor, s.Mispredicted, s.Tokens)
	if s.CorrectionSize > 250+s.BlobSize*perMille/1000 {
		t.Errorf("the correction is %d bytes for a blob of %d (%s)", s.CorrectionSize, s.BlobSize, s.Predictor)
	}
}

func TestKlauspost(t *testing.T) {
	plain := text(150_000, 5)
	for level := kgzip.StatelessCompression; level <= kgzip.BestCompression; level++ {
		var b bytes.Buffer
		w, err := kgzip.NewWriterLevel(&b, level)
		write(t, w, err, plain)
		exact := int64(2)
		if level < 1 || level > 6 {
			exact = 150 // no predictor of their own
		}
		expectSmall(t, b.Bytes(), plain, exact)
	}
}

func TestPgzip(t *testing.T) {
	plain := text(2_300_000, 6)
	for _, block := range []int{128 << 10, 1 << 20} {
		var b bytes.Buffer
		w := pgzip.NewWriter(&b)
		write(t, w, w.SetConcurrency(block, 2), plain)
		expectSmall(t, b.Bytes(), plain, 1)
	}
}

func write(t *testing.T, w io.WriteCloser, err error, plain []byte) {
	t.Helper()
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPrograms(t *testing.T) {
	plain := text(700_000, 8)
	for _, argv := range [][]string{
		{"gzip", "-1"},
		{"gzip", "-3"},
		{"gzip", "-6"},
		{"gzip", "-9"},
		{"pigz", "-p2", "-1"},
		{"pigz", "-p2", "-6"},
		{"pigz", "-p1", "-9"},
		{"pigz", "-p2", "-b", "512", "-i"},
	} {
		t.Run(argv[0]+argv[len(argv)-1], func(t *testing.T) {
			testenv.Require(t, argv[0])
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdin = bytes.NewReader(plain)
			blob, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			expectSmall(t, blob, plain, 2)
		})
	}
}
