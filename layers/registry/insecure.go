package registry

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// An insecureSet knows the registries whose identity is not verified.
type insecureSet struct {
	hosts []string
	nets  []netip.Prefix
}

// loopback are the addresses of this machine.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newInsecureSet(list []string) (insecureSet, error) {
	s := insecureSet{nets: slices.Clone(loopback)}
	for _, item := range list {
		if p, err := netip.ParsePrefix(item); err == nil {
			s.nets = append(s.nets, p.Masked())
			continue
		}
		if !isHost(item) {
			return s, fmt.Errorf("insecure registry %q: want HOST[:PORT] or a range of addresses such as 10.0.0.0/8", item)
		}
		s.hosts = append(s.hosts, item)
	}
	return s, nil
}

func isHost(s string) bool {
	for _, r := range s {
		if r == '/' || r <= ' ' || r == '@' {
			return false
		}
	}
	return s != ""
}

// has says whether a registry, as HOST[:PORT], is in the set: by its name, or
// because one of its addresses is.
func (s insecureSet) has(ctx context.Context, hostPort string) bool {
	name, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		name = hostPort
	}
	if slices.Contains(s.hosts, hostPort) || slices.Contains(s.hosts, name) {
		return true
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return s.hasAddr(addr)
	}
	// A name that does not resolve is no loopback name; connecting says more.
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return err == nil && slices.ContainsFunc(addrs, s.hasAddr)
}

func (s insecureSet) hasAddr(addr netip.Addr) bool {
	addr = addr.Unmap()
	return slices.ContainsFunc(s.nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}
