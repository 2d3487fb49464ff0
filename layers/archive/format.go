package archive

import "fmt"

// A Format is a way to keep images in files.
type Format uint8

// The formats that can be read and written.
const (
	FormatUnset         Format = iota
	FormatDockerArchive        // a tar with manifest.json and uncompressed layers
	FormatOCIArchive           // a tar of an OCI layout
	FormatOCIDir               // an OCI layout directory
	FormatSkopeoDir            // a directory of the dir: transport of containers tools
)

// formatNames has the names of the formats from FormatDockerArchive on.
var formatNames = [...]string{"docker-archive", "oci-archive", "oci-dir", "dir"}

// String returns the name of the format, as ParseFormat takes it.
func (f Format) String() string {
	if f >= FormatDockerArchive && int(f) <= len(formatNames) {
		return formatNames[f-1]
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// ParseFormat returns the format of a name.
func ParseFormat(name string) (Format, error) {
	for i, s := range formatNames {
		if s == name {
			return Format(i + 1), nil
		}
	}
	return FormatUnset, fmt.Errorf("format %q is not known; use docker-archive, oci-archive, oci-dir or dir", name)
}
