package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.yaml.in/yaml/v3"

	"github.com/layerfs/layerfs/layers/policy"
)

// Simple signatures lie beside a registry, in a directory or on a web server that
// registries.d names (containers-registries.d(5)).

// A lookaside is where the signatures of some images are.
type lookaside struct {
	Lookaside string `yaml:"lookaside"`
	Sigstore  string `yaml:"sigstore"` // the older word
}

func (l lookaside) base() string {
	if l.Lookaside != "" {
		return l.Lookaside
	}
	return l.Sigstore
}

// A lookasideFile is one file of registries.d.
type lookasideFile struct {
	Default *lookaside           `yaml:"default-docker"`
	Docker  map[string]lookaside `yaml:"docker"`
}

const (
	// maxSignatures and maxSignature limit what is read for one manifest.
	maxSignatures = 128
	maxSignature  = 4 << 20
)

// registriesD is the directory of the configuration.
func (c *Client) registriesD() string {
	if c.o.RegistriesDir != "" {
		return c.o.RegistriesDir
	}
	if home, err := os.UserHomeDir(); err == nil {
		dir := filepath.Join(home, ".config/containers/registries.d")
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return "/etc/containers/registries.d"
}

// lookasideOf returns the address under which the signatures of a repository are.
func (c *Client) lookasideOf(named reference.Named) (*url.URL, error) {
	conf := lookasideFile{Docker: map[string]lookaside{}}
	files, err := filepath.Glob(filepath.Join(c.registriesD(), "*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var f lookasideFile
		if err := yaml.Unmarshal(raw, &f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if f.Default != nil {
			conf.Default = f.Default
		}
		maps.Copy(conf.Docker, f.Docker)
	}
	base := conf.find(named)
	if base == "" {
		base = "file://" + defaultLookaside()
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("signature storage %q: %w", base, err)
	}
	return u.JoinPath(reference.Path(named)), nil
}

func (f *lookasideFile) find(named reference.Named) string {
	for _, scope := range policy.DockerScopes(named) {
		if base := f.Docker[scope].base(); base != "" {
			return base
		}
	}
	if f.Default != nil {
		return f.Default.base()
	}
	return ""
}

func defaultLookaside() string {
	if home, err := os.UserHomeDir(); err == nil && os.Geteuid() != 0 {
		return filepath.Join(home, ".local/share/containers/sigstore")
	}
	return "/var/lib/containers/sigstore"
}

// signatures returns the simple signatures of a manifest.
func (c *Client) signatures(ctx context.Context, named reference.Named, d digest.Digest) ([][]byte, error) {
	base, err := c.lookasideOf(named)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for i := 1; i <= maxSignatures; i++ {
		u := *base
		u.Path = fmt.Sprintf("%s@%s=%s/signature-%d", u.Path, d.Algorithm(), d.Encoded(), i)
		sig, err := c.signature(ctx, &u)
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, sig)
	}
	return nil, fmt.Errorf("%w: more than %d signatures", ErrTooLarge, maxSignatures)
}

// signature reads one signature; fs.ErrNotExist means there is none.
func (c *Client) signature(ctx context.Context, u *url.URL) ([]byte, error) {
	switch u.Scheme {
	case "file":
		f, err := os.Open(u.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readSignature(f)
	case "http", "https":
		w := newWatch(ctx, c.o.Stall)
		defer w.stop()
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", c.o.UserAgent)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, w.cause(err)
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusOK:
			return readSignature(resp.Body)
		case http.StatusNotFound:
			return nil, fs.ErrNotExist
		}
		return nil, newStatusError(resp)
	}
	return nil, fmt.Errorf("signature storage %s: want file, http or https", strings.TrimSpace(u.Redacted()))
}

func readSignature(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSignature+1))
	if err == nil && len(raw) > maxSignature {
		err = fmt.Errorf("%w: a signature of more than %d bytes", ErrTooLarge, maxSignature)
	}
	return raw, err
}
