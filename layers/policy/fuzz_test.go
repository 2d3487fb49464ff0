package policy

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
)

// FuzzPolicy reads any policy.json and asks it about an image without signatures. Only a policy that says
// insecureAcceptAnything lets that in.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), "example.com/a:1")
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"example.com":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nonexistent","signedIdentity":{"type":"matchRepository"}}]}}}`), "example.com/a:1")
	f.Add([]byte(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"eA==","signedIdentity":{"type":"remapIdentity","prefix":"a","signedPrefix":"b"}}]}`), "a/b@sha256:aa")
	f.Add([]byte(`{"default":[{"type":"sigstoreSigned"}],"transports":{"docker":{"*.example.com":[{"type":"exact"}]}}}`), "x.example.com/a")
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		p, err := parse("policy.json", raw)
		if err != nil {
			return
		}
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return
		}
		named = reference.TagNameOnly(named)
		img := &Image{
			Transport: "docker", Name: named, Scopes: DockerScopes(named), Manifest: digest.FromString("m"),
			Signatures: func(context.Context) ([][]byte, error) { return nil, nil },
		}
		list, _ := p.lookup(img)
		open := len(list) > 0
		for _, r := range list {
			if _, ok := r.(anything); !ok {
				open = false
			}
		}
		err = p.Check(context.Background(), img)
		if open != (err == nil) {
			t.Errorf("%s: %v, although every requirement accepts anything: %v", name, err, open)
		}
		if err != nil && errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
