package fs

import "strings"

// splitPath cuts a path into its directory ("" for none) and its last component.
func splitPath(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// validPath reports whether a path can be shown: the index normalizes names, but what it says becomes directory
// entries here, so nothing is taken on trust.
func validPath(path string) bool {
	for c := range strings.SplitSeq(path, "/") {
		if c == "" || c == "." || c == ".." || len(c) > 255 || strings.IndexByte(c, 0) >= 0 {
			return false
		}
	}
	return true
}
