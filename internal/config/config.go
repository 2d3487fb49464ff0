package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrInvalid is returned for a configuration file that cannot be understood.
var ErrInvalid = errors.New("invalid configuration")

// A Key names a setting as the file does.
type Key string

// The settings.
const (
	Root        Key = "storage.graphroot"
	Runroot     Key = "storage.runroot"
	Additional  Key = "storage.options.additionalimagestores"
	UIDMap      Key = "storage.options.remap-uids"
	GIDMap      Key = "storage.options.remap-gids"
	IDMap       Key = "layerfs.idmap"
	AllowOther  Key = "layerfs.allow-other"
	Insecure    Key = "layerfs.insecure-registries"
	LogLevel    Key = "layerfs.log-level"
	LogFormat   Key = "layerfs.log-format"
	defaultFrom     = "default"
)

// keys are all settings in the order in which they are shown, with the flag and the
// environment variable that set them too.
var keys = []struct {
	key       Key
	flag, env string
}{
	{Root, "root", "LAYERFS_ROOT"},
	{Runroot, "runroot", "LAYERFS_RUNROOT"},
	{Additional, "additional-store", "LAYERFS_ADDITIONAL_STORES"},
	{UIDMap, "uidmap", ""},
	{GIDMap, "gidmap", ""},
	{IDMap, "idmap", ""},
	{AllowOther, "allow-other", ""},
	{Insecure, "insecure-registry", ""},
	{LogLevel, "log-level", "LAYERFS_LOG_LEVEL"},
	{LogFormat, "log-format", "LAYERFS_LOG_FORMAT"},
}

// A Setting is a value in force and where it came from.
type Setting struct {
	Key    Key      `json:"key"`
	Values []string `json:"values"` // more than one only for lists; empty: nothing is set
	From   string   `json:"from"`
}

// Value returns the value of a setting that is no list, empty when it is not set.
func (s Setting) Value() string {
	if len(s.Values) == 0 {
		return ""
	}
	return s.Values[0]
}

// A Config is everything that is set.
type Config struct {
	// File is the configuration file that was read, empty when there is none.
	File string
	// Warnings are sentences about what in the file has no effect.
	Warnings []string
	settings map[Key]Setting
}

// Sources are the places where settings come from.
type Sources struct {
	// Flags are the flags that the command line has, by name.
	Flags map[string][]string
	// Getenv reads the environment; nil means os.Getenv.
	Getenv func(string) string
	// UID is the user: 0 reads the file of the system, others their own first.
	UID int
	// System is the file of the system; empty means /etc/layerfs/storage.conf.
	System string
}

// Load reads the configuration.
func Load(s Sources) (*Config, error) {
	if s.Getenv == nil {
		s.Getenv = os.Getenv
	}
	if s.System == "" {
		s.System = "/etc/layerfs/storage.conf"
	}
	c := &Config{settings: map[Key]Setting{}}
	file, err := c.readFile(s)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		v := Setting{Key: k.key, From: defaultFrom}
		if f, ok := file[k.key]; ok {
			v = f
		}
		if text := s.Getenv(k.env); k.env != "" && text != "" {
			v = Setting{k.key, []string{text}, k.env}
			if k.key == Additional {
				v.Values = filepath.SplitList(text)
			}
		}
		if f, ok := s.Flags[k.flag]; ok {
			v = Setting{k.key, f, "--" + k.flag}
		}
		if v, err = absolute(v); err != nil {
			return nil, err
		}
		c.settings[k.key] = v
	}
	return c, nil
}

// absolute makes paths absolute, so that they mean the same in the process of a mount.
// An empty additional store, as in --additional-store "", is none.
func absolute(v Setting) (Setting, error) {
	if v.Key != Root && v.Key != Runroot && v.Key != Additional {
		return v, nil
	}
	var paths []string
	for _, p := range v.Values {
		if p == "" {
			continue
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return v, err
		}
		paths = append(paths, abs)
	}
	v.Values = paths
	return v, nil
}

// Get returns a setting.
func (c *Config) Get(k Key) Setting { return c.settings[k] }

// Default sets what a setting is where nobody has set it.
func (c *Config) Default(k Key, value string) {
	if s := c.settings[k]; s.From == defaultFrom {
		c.settings[k] = Setting{k, []string{value}, defaultFrom}
	}
}

// All returns all settings.
func (c *Config) All() []Setting {
	all := make([]Setting, len(keys))
	for i, k := range keys {
		all[i] = c.settings[k.key]
		if all[i].Values == nil {
			all[i].Values = []string{}
		}
	}
	return all
}

// readFile finds and reads the file, and returns what it sets.
func (c *Config) readFile(s Sources) (map[Key]Setting, error) {
	path, from := s.Getenv("LAYERFS_CONF"), "LAYERFS_CONF"
	if f, ok := s.Flags["config"]; ok && len(f) > 0 {
		path, from = f[0], "--config"
	}
	if path != "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		set, err := c.parse(abs, s)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w (named by %s)", path, fs.ErrNotExist, from)
		}
		return set, err
	}
	if own := ownFile(s); own != "" {
		set, err := c.parse(own, s)
		if !errors.Is(err, fs.ErrNotExist) {
			return set, err
		}
	}
	set, err := c.parse(s.System, s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if s.UID != 0 {
		delete(set, Root)
		delete(set, Runroot)
		if p, ok := set[rootless]; ok {
			set[Root] = Setting{Root, p.Values, p.From}
		}
	}
	return set, err
}

// ownFile is the configuration file of an ordinary user.
func ownFile(s Sources) string {
	if s.UID == 0 {
		return ""
	}
	if dir := s.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "layerfs/storage.conf")
	}
	if home := s.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config/layerfs/storage.conf")
	}
	return ""
}

// expand replaces the variables that a path in the file may have.
func expand(path string, s Sources) (string, error) {
	var unknown []string
	out := os.Expand(path, func(name string) string {
		switch name {
		case "UID":
			return strconv.Itoa(s.UID)
		case "HOME", "USER":
			if v := s.Getenv(name); v != "" {
				return v
			}
		}
		unknown = append(unknown, "$"+name)
		return ""
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("%s is not set; only $HOME, $USER and $UID can be used", strings.Join(unknown, ", "))
	}
	return out, nil
}
