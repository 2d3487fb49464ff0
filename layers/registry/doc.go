// Package registry fetches images from registries and sends images to them, by the
// distribution specification of OCI. It is the only package of layerfs that uses the
// network.
//
// # Words
//
// A [Client] holds what is the same for all registries: credentials, certificates,
// registries.conf. An endpoint is one repository on one server, reached directly or
// as a mirror. A [Remote] is what a name stands for: a manifest, or an index (docker:
// manifest list) over manifests for several platforms. A [Source] is one image of it
// and implements layers.Source.
//
// # What is configured elsewhere
//
// Which server a name leads to, mirrors, blocked and insecure registries, short names
// and their aliases come from registries.conf, version 2; credentials from the
// auth.json of containers tools, docker's config.json and credential helpers, all
// read by go.podman.io/image. The exchange with the server is our own, because a blob
// must go on where another process has stopped, a stalled server must be noticed, and
// each of these needs a hand on the request itself.
//
// # Interrupted fetches
//
// Every layer that the store lacks is fetched by a goroutine of its own into a
// layers.Partial, a file in the store, and read from there as it grows. After an
// error, an interrupt or a reboot the file is still there, and the next fetch asks
// the server for the rest only. Nothing of a partial file is believed before the
// digest of the whole has been verified by package layers; what fails is discarded
// and, if some of it was old, fetched once more from the beginning.
package registry
