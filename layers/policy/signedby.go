package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/opencontainers/go-digest"
)

// signedBy wants a signature by one of some keys.
type signedBy struct {
	keyPaths []string
	keyData  []byte
	identity identity
}

func parseSignedBy(raw json.RawMessage) (requirement, error) {
	var doc struct {
		Type     string          `json:"type"`
		KeyType  string          `json:"keyType"`
		KeyPath  string          `json:"keyPath"`
		KeyPaths []string        `json:"keyPaths"`
		KeyData  []byte          `json:"keyData"`
		Identity json.RawMessage `json:"signedIdentity"`
	}
	if err := strict(raw, &doc); err != nil {
		return nil, fmt.Errorf("signedBy: %w", err)
	}
	if doc.KeyType != "GPGKeys" {
		return unknown{"signedBy with keyType " + doc.KeyType}, nil
	}
	s := &signedBy{keyPaths: doc.KeyPaths, keyData: doc.KeyData}
	given := 0
	for _, is := range []bool{doc.KeyPath != "", len(doc.KeyPaths) > 0, len(doc.KeyData) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("signedBy: want one of keyPath, keyPaths and keyData")
	}
	if doc.KeyPath != "" {
		s.keyPaths = []string{doc.KeyPath}
	}
	var err error
	s.identity, err = parseIdentity(doc.Identity)
	return s, err
}

func (s *signedBy) check(ctx context.Context, img *Image) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	if img.Signatures == nil {
		return errors.New("there is no signature")
	}
	list, err := img.Signatures(ctx)
	if err != nil {
		return fmt.Errorf("signatures: %w", err)
	}
	var first error
	for _, sig := range list {
		if err = s.accepts(keys, sig, img); err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		return errors.New("there is no signature")
	}
	return first
}

// keys reads the keys each time: they may have been replaced.
func (s *signedBy) keys() (openpgp.EntityList, error) {
	blobs := [][]byte{s.keyData}
	if len(s.keyPaths) > 0 {
		blobs = nil
	}
	for _, path := range s.keyPaths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, raw)
	}
	var keys openpgp.EntityList
	for _, raw := range blobs {
		read := openpgp.ReadKeyRing
		if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")) {
			read = openpgp.ReadArmoredKeyRing
		}
		list, err := read(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("public keys: %w", err)
		}
		keys = append(keys, list...)
	}
	if len(keys) == 0 {
		return nil, errors.New("there are no public keys")
	}
	return keys, nil
}

// A payload is what a simple signature is over (container-signature(5)).
type payload struct {
	Critical struct {
		Type  string `json:"type"`
		Image struct {
			Digest digest.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
	} `json:"critical"`
	Optional json.RawMessage `json:"optional"`
}

// accepts verifies one signature: made by a known key, about this manifest, under a name
// that stands for the image.
func (s *signedBy) accepts(keys openpgp.EntityList, sig []byte, img *Image) error {
	text, err := verify(keys, sig)
	if err != nil {
		return err
	}
	var p payload
	if err := strict(text, &p); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	if p.Critical.Type != "atomic container signature" {
		return fmt.Errorf("the signature is of type %q", p.Critical.Type)
	}
	if p.Critical.Image.Digest != img.Manifest {
		return fmt.Errorf("the signature is for the manifest %s, not for %s", p.Critical.Image.Digest, img.Manifest)
	}
	if !s.identity.matches(img.Name, p.Critical.Identity.Reference) {
		return fmt.Errorf("the signature is for the name %q", p.Critical.Identity.Reference)
	}
	return nil
}

// maxPayload is far more than any payload needs.
const maxPayload = 1 << 20

// verify returns what an OpenPGP message holds when one of the keys has signed it.
func verify(keys openpgp.EntityList, sig []byte) ([]byte, error) {
	md, err := openpgp.ReadMessage(bytes.NewReader(sig), keys, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	if !md.IsSigned || md.IsEncrypted {
		return nil, errors.New("the signature is no signed message")
	}
	// The signature is checked when the end of the text has been read.
	text, err := io.ReadAll(io.LimitReader(md.UnverifiedBody, maxPayload))
	switch {
	case err != nil:
		return nil, fmt.Errorf("signature: %w", err)
	case len(text) == maxPayload:
		return nil, errors.New("the signature is too large")
	case md.SignatureError != nil:
		return nil, fmt.Errorf("signature: %w", md.SignatureError)
	case md.SignedBy == nil || md.Signature == nil:
		return nil, fmt.Errorf("the signature is by the key %X, which the policy does not name", md.SignedByKeyId)
	case md.Signature.SigExpired(time.Now()):
		return nil, errors.New("the signature has expired")
	}
	return text, nil
}
