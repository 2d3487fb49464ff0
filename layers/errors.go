package layers

import (
	"errors"
	"fmt"

	"github.com/layerfs/layerfs/index"
)

var (
	// ErrImageUnknown is returned when no image has the name or ID that was given.
	ErrImageUnknown = errors.New("image not known")
	// ErrLayerUnknown is returned when no layer has the DiffID that was given.
	ErrLayerUnknown = errors.New("layer not known")
	// ErrContainerUnknown is returned when no container has the name or ID that was
	// given.
	ErrContainerUnknown = errors.New("container not known")
	// ErrDuplicateID is returned when something is to be made with an ID that is taken.
	ErrDuplicateID = errors.New("ID is taken")
	// ErrDuplicateName is returned when something is to get a name that is taken.
	ErrDuplicateName = errors.New("name is taken")
	// ErrInvalidLabel is returned for a label that cannot be kept.
	ErrInvalidLabel = errors.New("invalid label")
	// ErrInvalidChange is returned for an instruction for a config that is not
	// understood.
	ErrInvalidChange = errors.New("invalid change")
	// ErrAmbiguous is returned when an abbreviated ID fits several items; the text
	// lists them.
	ErrAmbiguous = errors.New("abbreviated ID is ambiguous")
	// ErrInvalidName is returned for a reference that the reference grammar of the
	// distribution project does not allow.
	ErrInvalidName = errors.New("invalid name")
	// ErrInUse is returned when something is not removed because something else
	// still needs it.
	ErrInUse = errors.New("in use")
	// ErrImageUsedByContainer is returned when an image is not removed because
	// containers are made of it; the text names them. It is an ErrInUse.
	ErrImageUsedByContainer = fmt.Errorf("image %w by a container", ErrInUse)
	// ErrLayerHasChildren is returned when a layer record is not removed, or nothing is
	// applied to it, because others stand on it. It is an ErrInUse.
	ErrLayerHasChildren = fmt.Errorf("layer %w by layers on top of it", ErrInUse)
	// ErrLayerUsedByImage is returned when a layer is not removed because images need
	// it; the text names them. It is an ErrInUse.
	ErrLayerUsedByImage = fmt.Errorf("layer %w by an image", ErrInUse)
	// ErrLayerUsedByContainer is returned when a layer is not removed because
	// containers need it; the text names them. It is an ErrInUse.
	ErrLayerUsedByContainer = fmt.Errorf("layer %w by a container", ErrInUse)
	// ErrParentIsContainer is returned when a layer is to be made on top of a container:
	// what may still change can be nobody's parent. Commit it first.
	ErrParentIsContainer = errors.New("a container can be no parent")
	// ErrNotAnID is returned when neither an image nor a layer nor a container has the
	// ID or name that was given.
	ErrNotAnID = errors.New("neither an image nor a layer nor a container")
	// ErrNoData is returned when an item has no big data under the key.
	ErrNoData = errors.New("no such big data")
	// ErrApplied is returned when something is to be applied to a layer record that
	// has its content already.
	ErrApplied = errors.New("layer has its content already")
	// ErrVerification is returned when content does not have the digest or the size
	// that was promised for it.
	ErrVerification = errors.New("verification failed")
	// ErrInvalidLayer is returned when a layer is no tar archive, or holds what no
	// file system can hold.
	ErrInvalidLayer = errors.New("invalid layer")
	// ErrInvalidImage is returned when a manifest or a config cannot be understood
	// or contradict each other.
	ErrInvalidImage = errors.New("invalid image")
	// ErrTooLarge is returned when an image is larger than the caller allows.
	ErrTooLarge = errors.New("larger than allowed")
	// ErrDamaged is returned when a file of the store is missing or is not what it
	// was when it was written.
	ErrDamaged = errors.New("store is damaged")
	// ErrIndexDamaged is returned when the index of the store cannot be read, or has
	// lost changes; Repair makes it anew.
	ErrIndexDamaged = index.ErrDamaged
	// ErrNotStore is returned by Open for a directory that holds other things.
	ErrNotStore = errors.New("not a layerfs store")
	// ErrNewer is returned for a store that a newer layerfs has written in a format
	// that this one does not know.
	ErrNewer = index.ErrNewer
	// ErrBusy is returned when a lock of the store could not be had in time.
	ErrBusy = index.ErrBusy
	// ErrBlobGone is returned when the bytes of a compressed layer were not kept, so
	// that only a new compression with another digest can be had.
	ErrBlobGone = errors.New("compressed layer is not kept")
	// ErrReadOnly is returned when a store that was opened read-only is to be changed.
	ErrReadOnly = errors.New("store is read-only")
	// ErrInvalidMap is returned for a map of IDs that is none.
	ErrInvalidMap = errors.New("invalid map of IDs")
	// ErrStoreGone is returned when something lies in an additional store that is not
	// there, or cannot be read.
	ErrStoreGone = errors.New("additional store is not available")
	// ErrStoreIsReadOnly is ErrReadOnly under the name that containers/storage has for it.
	ErrStoreIsReadOnly = ErrReadOnly
)
