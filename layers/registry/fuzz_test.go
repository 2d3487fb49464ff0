package registry

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzAnswers reads what a hostile registry can say in headers and in the answer of its token server.
func FuzzAnswers(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example.com/token",service="a",scope="repository:b:pull"`, `{"token":"x","expires_in":300}`, "bytes 5-9/10", int64(5))
	f.Add(`Basic realm=x, Bearer realm="\"`, `{"access_token":"y","expires_in":9223372036854775807}`, "bytes -1-", int64(0))
	f.Add(`Bearer ===,,," `, `{"token":1}`, "bytes 99999999999999999999-", int64(-1))
	f.Fuzz(func(t *testing.T, header, body, contentRange string, length int64) {
		for _, c := range parseChallenges(strings.Split(header, "\n")) {
			if c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("scheme %q", c.scheme)
			}
			for key := range c.params {
				if key != strings.ToLower(key) {
					t.Errorf("parameter %q", key)
				}
			}
		}
		before := time.Now()
		if tok, err := readToken(strings.NewReader(body)); err == nil {
			if left := tok.expires.Sub(before); tok.value == "" || left < time.Minute || left > maxTokenAge+time.Minute {
				t.Errorf("token %q is good for %v", tok.value, left)
			}
		}
		const size, have = 1000, 10
		x := &fetch{desc: ocispec.Descriptor{Digest: digest.FromString("x"), Size: size}, have: have}
		resp := &http.Response{StatusCode: http.StatusPartialContent, ContentLength: length, Header: http.Header{"Content-Range": {contentRange}}, Body: io.NopCloser(strings.NewReader(""))}
		if skip, err := x.startOf(resp); err == nil && (skip < 0 || skip > have || length >= 0 && have-skip+length != size) {
			t.Errorf("range %q of %d bytes: %d are skipped", contentRange, length, skip)
		}
	})
}

// FuzzSignature reads signatures as a lookaside server sends them.
func FuzzSignature(f *testing.F) {
	f.Add([]byte("signature"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := readSignature(bytes.NewReader(data)); err == nil && !bytes.Equal(got, data) {
			t.Errorf("%d bytes came as %d", len(data), len(got))
		}
	})
}
