package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// A requirement is one thing that a policy wants of an image.
type requirement interface {
	check(ctx context.Context, img *Image) error
}

// parseRequirement reads a requirement. One of a kind that is not known is kept, and
// refuses whatever it is asked about.
func parseRequirement(raw json.RawMessage) (requirement, error) {
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, err
	}
	var bare struct {
		Type string `json:"type"`
	}
	switch kind.Type {
	case "insecureAcceptAnything":
		return anything{}, strict(raw, &bare)
	case "reject":
		return reject{}, strict(raw, &bare)
	case "signedBy":
		return parseSignedBy(raw)
	case "":
		return nil, errors.New("a requirement has no type")
	}
	return unknown{kind.Type}, nil
}

type anything struct{}

func (anything) check(context.Context, *Image) error { return nil }

type reject struct{}

func (reject) check(context.Context, *Image) error {
	return errors.New("it lets in no image of this kind")
}

// An unknown requirement is one that only other programs can check.
type unknown struct{ kind string }

func (u unknown) check(context.Context, *Image) error {
	return fmt.Errorf("it wants %q, which layerfs cannot verify", u.kind)
}
