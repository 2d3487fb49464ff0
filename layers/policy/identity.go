package policy

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.podman.io/image/v5/docker/reference"
)

// An identity says which name a signature has to be for.
type identity struct {
	Type         string `json:"type"`
	Reference    string `json:"dockerReference,omitempty"`
	Repository   string `json:"dockerRepository,omitempty"`
	Prefix       string `json:"prefix,omitempty"`
	SignedPrefix string `json:"signedPrefix,omitempty"`
}

func parseIdentity(raw json.RawMessage) (identity, error) {
	id := identity{Type: "matchRepoDigestOrExact"}
	if raw != nil {
		id = identity{}
		if err := strict(raw, &id); err != nil {
			return id, fmt.Errorf("signedIdentity: %w", err)
		}
	}
	ok := true
	switch id.Type {
	case "matchExact", "matchRepoDigestOrExact", "matchRepository":
	case "exactReference":
		ok = id.Reference != ""
	case "exactRepository":
		ok = id.Repository != ""
	case "remapIdentity":
		ok = id.Prefix != "" && id.SignedPrefix != ""
	default:
		return id, fmt.Errorf("signedIdentity: type %q is not known", id.Type)
	}
	if !ok {
		return id, fmt.Errorf("signedIdentity: %s lacks what it is about", id.Type)
	}
	return id, nil
}

// matches says whether a signature for the name signed is one for the image, whose name
// is nil outside of registries.
func (id identity) matches(image reference.Named, signed string) bool {
	sig, err := reference.ParseNormalizedNamed(signed)
	if err != nil {
		return false
	}
	switch id.Type {
	case "exactReference":
		want, err := reference.ParseNormalizedNamed(id.Reference)
		return err == nil && !reference.IsNameOnly(want) && !reference.IsNameOnly(sig) && want.String() == sig.String()
	case "exactRepository":
		want, err := reference.ParseNormalizedNamed(id.Repository)
		return err == nil && want.Name() == sig.Name()
	}
	if image == nil {
		return false
	}
	switch id.Type {
	case "matchExact":
		return !reference.IsNameOnly(sig) && sig.String() == image.String()
	case "matchRepository":
		return sig.Name() == image.Name()
	case "remapIdentity":
		if image, err = id.remap(image); err != nil {
			return false
		}
	}
	// A digest is that of the manifest, which the signature names itself.
	if _, ok := image.(reference.Canonical); ok {
		return !reference.IsNameOnly(sig) && sig.Name() == image.Name()
	}
	return !reference.IsNameOnly(sig) && sig.String() == image.String()
}

// remap gives an image of a mirror the name that it has been signed under.
func (id identity) remap(image reference.Named) (reference.Named, error) {
	rest, ok := strings.CutPrefix(image.Name(), id.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return image, nil
	}
	return reference.ParseNamed(id.SignedPrefix + strings.TrimPrefix(image.String(), id.Prefix))
}
