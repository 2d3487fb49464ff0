package registrytest

import (
	"io"
	"log"
)

// quiet takes what servers log about connections that a test has broken.
var quiet = log.New(io.Discard, "", 0)
