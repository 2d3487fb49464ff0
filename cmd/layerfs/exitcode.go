package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/config"
	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
	"github.com/layerfs/layerfs/layers/policy"
	"github.com/layerfs/layerfs/layers/registry"
)

// The exit codes, a contract with scripts.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitNotFound = 3
	exitInUse    = 4
	exitVerify   = 5
	exitBusy     = 6
)

// exitText is the table of --help.
var exitText = []struct {
	code int
	text string
}{
	{exitOK, "done"},
	{exitFailure, "failed for another reason than those below"},
	{exitUsage, "the command line or the configuration is wrong: a verb, flag, argument, name or file"},
	{exitNotFound, "the image, layer, container, file or mount does not exist"},
	{exitInUse, "something still uses it: a busy mount, an image with more names or with containers, a name that is taken"},
	{exitVerify, "an archive or the store is damaged: a digest or size is not what was promised"},
	{exitBusy, "another process holds a lock of the store for too long"},
}

// exitCodes is tried from the top with errors.Is.
var exitCodes = []struct {
	target error
	code   int
}{
	{layers.ErrVerification, exitVerify},
	{layers.ErrDamaged, exitVerify},
	{layers.ErrIndexDamaged, exitVerify},
	{archive.ErrVerification, exitVerify},
	{archive.ErrDamaged, exitVerify},
	{policy.ErrRejected, exitVerify},
	{registry.ErrShortName, exitUsage},
	{layers.ErrBusy, exitBusy},
	{layers.ErrInvalidName, exitUsage},
	{layers.ErrInvalidMap, exitUsage},
	{config.ErrInvalid, exitUsage},
	{layers.ErrInvalidLabel, exitUsage},
	{layers.ErrInvalidChange, exitUsage},
	{layers.ErrImageUnknown, exitNotFound},
	{layers.ErrContainerUnknown, exitNotFound},
	{layers.ErrLayerUnknown, exitNotFound},
	{layers.ErrBlobGone, exitNotFound},
	{layers.ErrNotAnID, exitNotFound},
	{layers.ErrNoData, exitNotFound},
	{layers.ErrApplied, exitInUse},
	{control.ErrNotMounted, exitNotFound},
	{archive.ErrNoImage, exitNotFound},
	{registry.ErrNotFound, exitNotFound},
	{registry.ErrNotLoggedIn, exitNotFound},
	{registry.ErrNoPlatform, exitNotFound},
	{layers.ErrInUse, exitInUse},
	{layers.ErrDuplicateID, exitInUse},
	{layers.ErrDuplicateName, exitInUse},
	{control.ErrClaimed, exitInUse},
	{syscall.EBUSY, exitInUse},
	{layerfs.ErrOption, exitUsage},
	{layerfs.ErrMountBusy, exitInUse},
	{layerfs.ErrNotMounted, exitNotFound},
	// An abbreviation that fits several items is no "not found": a script that
	// would load what is missing must not go on.
	{layers.ErrAmbiguous, exitFailure},
	{fs.ErrNotExist, exitNotFound},
}

func exitCode(err error) int {
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	var s *control.StartError
	if errors.As(err, &s) && s.Code != 0 {
		return s.Code
	}
	var cmd *commandError
	if errors.As(err, &cmd) {
		return cmd.code()
	}
	for _, e := range exitCodes {
		if errors.Is(err, e.target) {
			return e.code
		}
	}
	return exitFailure
}

func isReadOnlyMedium(err error) bool { return errors.Is(err, syscall.EROFS) }

// exitHelp is the table as text.
func exitHelp() string {
	var b strings.Builder
	for _, e := range exitText {
		fmt.Fprintf(&b, "   %d  %s\n", e.code, e.text)
	}
	return b.String()
}
