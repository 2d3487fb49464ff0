package layers

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Step is one entry of an image's history. A step that only changed the config
// has no layer.
type Step struct {
	Layer     digest.Digest `json:"layer,omitempty"` // DiffID
	Created   *time.Time    `json:"created,omitempty"`
	CreatedBy string        `json:"created_by"`
	Comment   string        `json:"comment,omitempty"`
}

// History returns the steps that made an image, the oldest first. Each layer of the
// image has a step, whatever its config says: histories are often incomplete.
func (s *Store) History(img *Image) ([]Step, error) {
	raw, err := s.Blob(img.Config.Digest)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("%w: config %s: %w", ErrDamaged, img.Config.Digest, err)
	}
	var steps []Step
	stack := img.Layers
	for _, h := range config.History {
		step := Step{Created: h.Created, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if !h.EmptyLayer && len(stack) > 0 {
			step.Layer, stack = stack[0], stack[1:]
		}
		steps = append(steps, step)
	}
	for _, d := range stack {
		steps = append(steps, Step{Layer: d})
	}
	return steps, nil
}

// layerSteps returns the step of each layer of an image, bottom first.
func (s *Store) layerSteps(img *Image) ([]Step, error) {
	all, err := s.History(img)
	if err != nil {
		return nil, err
	}
	var steps []Step
	for _, step := range all {
		if step.Layer != "" {
			steps = append(steps, step)
		}
	}
	return steps, nil
}
