package main

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parsePlatform reads OS/ARCH[/VARIANT], or ARCH alone for Linux. The names of
// architectures that other tools use are understood.
func parsePlatform(text string) (*ocispec.Platform, error) {
	parts := strings.Split(text, "/")
	p := &ocispec.Platform{OS: "linux"}
	switch len(parts) {
	case 1:
		p.Architecture = parts[0]
	case 3:
		p.Variant = parts[2]
		fallthrough
	case 2:
		p.OS, p.Architecture = parts[0], parts[1]
	}
	if p.OS == "" || p.Architecture == "" || len(parts) > 3 {
		return nil, usagef("platform %q: want OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64", text)
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	}
	return p, nil
}
