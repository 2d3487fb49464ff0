package fs

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers"
)

// errnos says which errno an error becomes; the first entry that errors.Is finds counts. Whatever is not listed is
// EIO and logged once per text.
var errnos = []struct {
	target error
	errno  syscall.Errno
}{
	// The kernel asks for something that is no longer there: it looks the path up again.
	{layers.ErrLayerUnknown, syscall.ESTALE},
	{layers.ErrImageUnknown, syscall.ESTALE},
	{tree.ErrNoInode, syscall.ESTALE},
	{tree.ErrNotDirectory, syscall.ENOTDIR},
	// The store is at fault.
	{layers.ErrDamaged, syscall.EIO},
	{layers.ErrIndexDamaged, syscall.EIO},
	{layers.ErrVerification, syscall.EIO},
	{layers.ErrInvalidLayer, syscall.EIO},
	{layers.ErrInvalidImage, syscall.EIO},
	{layers.ErrNotStore, syscall.EIO},
	{layers.ErrNewer, syscall.EIO},
	{layers.ErrBlobGone, syscall.EIO},
	{layers.ErrStoreGone, syscall.EIO},
	{tree.ErrDamaged, syscall.EIO},
	{tree.ErrVersion, syscall.EIO},
	// Not reached by reading, but never wrong.
	{layers.ErrAmbiguous, syscall.EINVAL},
	{layers.ErrInvalidName, syscall.EINVAL},
	{layers.ErrInvalidMap, syscall.EINVAL},
	{layers.ErrInUse, syscall.EBUSY},
	{layers.ErrImageUsedByContainer, syscall.EBUSY},
	{layers.ErrContainerUnknown, syscall.ENOENT},
	{layers.ErrDuplicateID, syscall.EEXIST},
	{layers.ErrDuplicateName, syscall.EEXIST},
	{layers.ErrInvalidLabel, syscall.EINVAL},
	{layers.ErrInvalidChange, syscall.EINVAL},
	{layers.ErrLayerHasChildren, syscall.EBUSY},
	{layers.ErrLayerUsedByImage, syscall.EBUSY},
	{layers.ErrLayerUsedByContainer, syscall.EBUSY},
	{layers.ErrParentIsContainer, syscall.EINVAL},
	{layers.ErrNotAnID, syscall.ENOENT},
	{layers.ErrNoData, syscall.ENODATA},
	{layers.ErrApplied, syscall.EEXIST},
	{layers.ErrBusy, syscall.EAGAIN},
	{layers.ErrTooLarge, syscall.EFBIG},
	{layers.ErrReadOnly, syscall.EROFS},
	{layers.ErrStoreIsReadOnly, syscall.EROFS},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrPermission, syscall.EACCES},
	{syscall.EMFILE, syscall.EMFILE},
	{syscall.ENFILE, syscall.ENFILE},
	{syscall.ENOMEM, syscall.ENOMEM},
}

// errno translates an error at the boundary to the kernel. What becomes EIO is the user's only chance to learn the
// reason, so it goes to the log.
func (f *fileSystem) errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, e := range errnos {
		if errors.Is(err, e.target) {
			if e.errno == syscall.EIO {
				f.report(err.Error())
			}
			return e.errno
		}
	}
	f.report(err.Error())
	return syscall.EIO
}

// reported is the set of texts that were logged, so that a program that reads a damaged file in a loop does not fill
// the log.
type reported struct {
	mu    sync.Mutex
	texts map[string]struct{}
}

// maxReported bounds the set; afterwards nothing new is logged.
const maxReported = 1000

// first reports whether text is new and there is room for it.
func (r *reported) first(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.texts[text]; ok || len(r.texts) >= maxReported {
		return false
	}
	if r.texts == nil {
		r.texts = map[string]struct{}{}
	}
	r.texts[text] = struct{}{}
	return true
}

func (f *fileSystem) report(text string) {
	if f.reported.first(text) {
		f.log.Error("a request failed", "error", text)
	}
}
