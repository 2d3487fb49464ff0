package layers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// config makes the config of the new image: that of the one below, of which fields
// that nobody here knows are kept, with a step more in the history.
func (cm *commit) config(base map[string]json.RawMessage, stack []DiffID, created time.Time, empty bool) ([]byte, ocispec.Platform, error) {
	var platform ocispec.Platform
	old := struct {
		*ocispec.Platform
		History []json.RawMessage          `json:"history"`
		Config  map[string]json.RawMessage `json:"config"`
	}{Platform: &platform}
	raw, err := json.Marshal(base)
	if err == nil {
		err = json.Unmarshal(raw, &old)
	}
	if err != nil {
		return nil, platform, fmt.Errorf("%w: config of the image: %w", ErrInvalidImage, err)
	}
	if old.Config == nil {
		old.Config = map[string]json.RawMessage{}
	}
	for _, step := range cm.steps {
		if err := step.apply(old.Config); err != nil {
			return nil, platform, err
		}
	}
	rootfs := ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, d := range stack {
		rootfs.DiffIDs = append(rootfs.DiffIDs, digest.Digest(d))
	}
	step, err := json.Marshal(ocispec.History{
		Created: &created, CreatedBy: "layerfs commit", Author: cm.o.Author, Comment: cm.o.Message, EmptyLayer: empty,
	})
	if err != nil {
		return nil, platform, err
	}
	fields := map[string]any{"created": created, "config": old.Config, "rootfs": rootfs, "history": append(old.History, step)}
	if cm.o.Author != "" {
		fields["author"] = cm.o.Author
	}
	// What docker wrote down about the container that the old image was made of.
	for _, gone := range []string{"container", "container_config", "id", "parent"} {
		delete(base, gone)
	}
	for key, v := range fields {
		if base[key], err = json.Marshal(v); err != nil {
			return nil, platform, err
		}
	}
	raw, err = json.Marshal(base) // the keys of a map come out sorted
	return raw, platform, err
}

// A configChange is one instruction for a config.
type configChange struct {
	word, args string
}

// parseConfigChanges reads instructions as podman commit --change has them: the word
// and what follows are separated by a space or a '='.
func parseConfigChanges(list []string) ([]configChange, error) {
	var out []configChange
	for _, text := range list {
		i := strings.IndexAny(text, " =\t")
		if i < 0 {
			return nil, fmt.Errorf("%w: change %q: want for example \"ENV A=b\"", ErrInvalidChange, text)
		}
		c := configChange{strings.ToUpper(text[:i]), strings.TrimSpace(text[i+1:])}
		if err := c.apply(map[string]json.RawMessage{}); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// apply changes the part "config" of a config.
func (c configChange) apply(cfg map[string]json.RawMessage) error {
	switch c.word {
	case "CMD":
		return put(cfg, "Cmd", command(c.args))
	case "ENTRYPOINT":
		return put(cfg, "Entrypoint", command(c.args))
	case "USER":
		return put(cfg, "User", c.args)
	case "WORKDIR":
		return put(cfg, "WorkingDir", c.args)
	case "STOPSIGNAL":
		return put(cfg, "StopSignal", c.args)
	case "ONBUILD":
		return edit(cfg, "OnBuild", func(list []string) ([]string, error) { return append(list, c.args), nil })
	case "ENV":
		return edit(cfg, "Env", c.env)
	case "LABEL":
		return edit(cfg, "Labels", c.labels)
	case "EXPOSE":
		return edit(cfg, "ExposedPorts", c.ports)
	case "VOLUME":
		return edit(cfg, "Volumes", c.volumes)
	}
	return fmt.Errorf("%w: there is no change %q; want CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
		ErrInvalidChange, c.word)
}

func put(cfg map[string]json.RawMessage, key string, v any) (err error) {
	cfg[key], err = json.Marshal(v)
	return err
}

// edit changes a field that may be absent.
func edit[T any](cfg map[string]json.RawMessage, key string, fn func(T) (T, error)) error {
	var v T
	if raw, ok := cfg[key]; ok {
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("%w: %s in the config of the image: %w", ErrInvalidImage, key, err)
		}
	}
	v, err := fn(v)
	if err != nil {
		return err
	}
	return put(cfg, key, v)
}

// command reads a JSON array, or else a line for the shell.
func command(text string) []string {
	var words []string
	if json.Unmarshal([]byte(text), &words) == nil {
		return words
	}
	return []string{"/bin/sh", "-c", text}
}

// pairs reads KEY=VALUE, several of them when none has spaces, values perhaps in
// quotes.
func (c configChange) pairs() ([][2]string, error) {
	var out [][2]string
	for _, word := range shellWords(c.args) {
		key, value, ok := strings.Cut(word, "=")
		if !ok && len(out) == 0 {
			// The old form, "ENV KEY the rest".
			key, value, ok = strings.Cut(c.args, " ")
			if ok {
				return [][2]string{{key, strings.TrimSpace(value)}}, nil
			}
		}
		if !ok || key == "" {
			return nil, fmt.Errorf("%w: %s %s: want KEY=VALUE", ErrInvalidChange, c.word, c.args)
		}
		out = append(out, [2]string{key, value})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s: want KEY=VALUE", ErrInvalidChange, c.word)
	}
	return out, nil
}

// shellWords splits at spaces outside quotes, and drops the quotes.
func shellWords(text string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	inside := false
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inside = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if inside {
		words = append(words, word.String())
	}
	return words
}

func (c configChange) env(list []string) ([]string, error) {
	pairs, err := c.pairs()
	for _, p := range pairs {
		at := slices.IndexFunc(list, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") })
		if at < 0 {
			list = append(list, p[0]+"="+p[1])
			continue
		}
		list[at] = p[0] + "=" + p[1]
	}
	return list, err
}

func (c configChange) labels(labels map[string]string) (map[string]string, error) {
	pairs, err := c.pairs()
	if labels == nil {
		labels = map[string]string{}
	}
	for _, p := range pairs {
		labels[p[0]] = p[1]
	}
	return labels, err
}

func (c configChange) ports(ports map[string]struct{}) (map[string]struct{}, error) {
	if ports == nil {
		ports = map[string]struct{}{}
	}
	for _, p := range strings.Fields(c.args) {
		number, protocol, ok := strings.Cut(p, "/")
		if !ok {
			protocol = "tcp"
		}
		if number == "" || strings.Trim(number, "0123456789-") != "" {
			return nil, fmt.Errorf("%w: EXPOSE %s: want a port such as 80 or 53/udp", ErrInvalidChange, p)
		}
		ports[number+"/"+protocol] = struct{}{}
	}
	return ports, nil
}

func (c configChange) volumes(volumes map[string]struct{}) (map[string]struct{}, error) {
	if volumes == nil {
		volumes = map[string]struct{}{}
	}
	var list []string
	if json.Unmarshal([]byte(c.args), &list) != nil {
		list = strings.Fields(c.args)
	}
	for _, v := range list {
		volumes[v] = struct{}{}
	}
	return volumes, nil
}
