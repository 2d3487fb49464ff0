package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// rootless is the key in the file of the system for the graphroot of ordinary users.
const rootless Key = "storage.rootless_storage_path"

// document is the file; nil means that a key is not there.
type document struct {
	Storage struct {
		GraphRoot *string `toml:"graphroot"`
		RunRoot   *string `toml:"runroot"`
		Rootless  *string `toml:"rootless_storage_path"`
		Options   struct {
			Additional *[]string `toml:"additionalimagestores"`
			RemapUIDs  *string   `toml:"remap-uids"`
			RemapGIDs  *string   `toml:"remap-gids"`
		} `toml:"options"`
	} `toml:"storage"`
	Layerfs struct {
		IDMap      *string   `toml:"idmap"`
		AllowOther *bool     `toml:"allow-other"`
		LogLevel   *string   `toml:"log-level"`
		Insecure   *[]string `toml:"insecure-registries"`
		LogFormat  *string   `toml:"log-format"`
	} `toml:"layerfs"`
}

// parse reads one file.
func (c *Config) parse(path string, s Sources) (map[Key]Setting, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, fmt.Errorf("configuration: %w", err)
	}
	var d document
	meta, err := toml.Decode(string(raw), &d)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %s", ErrInvalid, path, explain(err))
	}
	c.File = path
	lines := strings.Split(string(raw), "\n")
	c.warn(path, lines, meta.Undecoded())
	p := parsed{path: path, lines: lines, set: map[Key]Setting{}}
	p.text(IDMap, d.Layerfs.IDMap)
	p.text(LogLevel, d.Layerfs.LogLevel)
	p.text(LogFormat, d.Layerfs.LogFormat)
	p.text(UIDMap, d.Storage.Options.RemapUIDs)
	p.text(GIDMap, d.Storage.Options.RemapGIDs)
	if list := d.Layerfs.Insecure; list != nil {
		p.put(Insecure, *list...)
	}
	if b := d.Layerfs.AllowOther; b != nil {
		p.put(AllowOther, strconv.FormatBool(*b))
	}
	p.path1(Root, d.Storage.GraphRoot, s)
	p.path1(Runroot, d.Storage.RunRoot, s)
	p.path1(rootless, d.Storage.Rootless, s)
	if list := d.Storage.Options.Additional; list != nil {
		p.paths(Additional, *list, s)
	}
	return p.set, p.err
}

// explain turns an error of the parser into the end of a sentence of ours.
func explain(err error) string { return strings.TrimPrefix(err.Error(), "toml: ") }

// warn names the keys that nobody here knows, in one sentence.
func (c *Config) warn(path string, lines []string, unknown []toml.Key) {
	var names []string
	for i, k := range unknown {
		if inTable(unknown[:i], k) {
			continue // its table has been named
		}
		names = append(names, fmt.Sprintf("%s (line %d)", k, lineOf(lines, k)))
	}
	if len(names) > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s: keys that layerfs does not know have no effect: %s", path, strings.Join(names, ", ")))
	}
}

// inTable reports whether one of the tables holds the key.
func inTable(tables []toml.Key, k toml.Key) bool {
	return slices.ContainsFunc(tables, func(t toml.Key) bool { return len(t) < len(k) && slices.Equal(t, k[:len(t)]) })
}

// lineOf finds the line in which a key or a table begins, 0 when it cannot tell. The
// parser does not say where what it did not need was.
func lineOf(lines []string, k toml.Key) int {
	name := regexp.QuoteMeta(k[len(k)-1])
	start := regexp.MustCompile(`^\s*(\[+[^\]]*|[^#=]*\.)?\s*["']?` + name + `["']?\s*[=\].]`)
	for i, line := range lines {
		if start.MatchString(line) {
			return i + 1
		}
	}
	return 0
}

// A parsed file is turned into settings; the first error stays.
type parsed struct {
	path  string
	lines []string
	set   map[Key]Setting
	err   error
}

// place says where a key is.
func (p *parsed) place(k Key) string {
	return fmt.Sprintf("%s:%d", p.path, lineOf(p.lines, strings.Split(string(k), ".")))
}

func (p *parsed) put(k Key, values ...string) {
	p.set[k] = Setting{Key: k, Values: values, From: p.place(k)}
}

func (p *parsed) text(k Key, v *string) {
	if v != nil && *v != "" {
		p.put(k, *v)
	}
}

func (p *parsed) path1(k Key, v *string, s Sources) {
	if v != nil && *v != "" {
		p.paths(k, []string{*v}, s)
	}
}

// paths takes over paths, which must be absolute: a file has no working directory.
func (p *parsed) paths(k Key, list []string, s Sources) {
	out := make([]string, 0, len(list))
	for _, path := range list {
		full, err := expand(path, s)
		if err == nil && !strings.HasPrefix(full, "/") {
			err = fmt.Errorf("%q is not an absolute path", path)
		}
		if err != nil && p.err == nil {
			p.err = fmt.Errorf("%w: %s: %s: %w", ErrInvalid, p.place(k), k, err)
		}
		out = append(out, full)
	}
	p.put(k, out...)
}
