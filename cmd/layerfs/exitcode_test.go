package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// Every sentinel of package layers has a decided exit code; a new one must be added
// here, and to the table when 1 is not right for it.
var decided = map[string]struct {
	err  error
	code int
}{
	"ErrImageUnknown":         {layers.ErrImageUnknown, exitNotFound},
	"ErrLayerUnknown":         {layers.ErrLayerUnknown, exitNotFound},
	"ErrBlobGone":             {layers.ErrBlobGone, exitNotFound},
	"ErrAmbiguous":            {layers.ErrAmbiguous, exitFailure},
	"ErrInvalidName":          {layers.ErrInvalidName, exitUsage},
	"ErrInUse":                {layers.ErrInUse, exitInUse},
	"ErrVerification":         {layers.ErrVerification, exitVerify},
	"ErrInvalidLayer":         {layers.ErrInvalidLayer, exitFailure},
	"ErrInvalidImage":         {layers.ErrInvalidImage, exitFailure},
	"ErrTooLarge":             {layers.ErrTooLarge, exitFailure},
	"ErrDamaged":              {layers.ErrDamaged, exitVerify},
	"ErrIndexDamaged":         {layers.ErrIndexDamaged, exitVerify},
	"ErrNotStore":             {layers.ErrNotStore, exitFailure},
	"ErrNewer":                {layers.ErrNewer, exitFailure},
	"ErrBusy":                 {layers.ErrBusy, exitBusy},
	"ErrReadOnly":             {layers.ErrReadOnly, exitFailure},
	"ErrInvalidMap":           {layers.ErrInvalidMap, exitUsage},
	"ErrStoreGone":            {layers.ErrStoreGone, exitFailure},
	"ErrStoreIsReadOnly":      {layers.ErrStoreIsReadOnly, exitFailure},
	"ErrContainerUnknown":     {layers.ErrContainerUnknown, exitNotFound},
	"ErrNotAnID":              {layers.ErrNotAnID, exitNotFound},
	"ErrNoData":               {layers.ErrNoData, exitNotFound},
	"ErrDuplicateID":          {layers.ErrDuplicateID, exitInUse},
	"ErrDuplicateName":        {layers.ErrDuplicateName, exitInUse},
	"ErrApplied":              {layers.ErrApplied, exitInUse},
	"ErrImageUsedByContainer": {layers.ErrImageUsedByContainer, exitInUse},
	"ErrLayerHasChildren":     {layers.ErrLayerHasChildren, exitInUse},
	"ErrLayerUsedByImage":     {layers.ErrLayerUsedByImage, exitInUse},
	"ErrLayerUsedByContainer": {layers.ErrLayerUsedByContainer, exitInUse},
	"ErrParentIsContainer":    {layers.ErrParentIsContainer, exitFailure},
	"ErrInvalidLabel":         {layers.ErrInvalidLabel, exitUsage},
	"ErrInvalidChange":        {layers.ErrInvalidChange, exitUsage},
}

func TestExitCodes(t *testing.T) {
	for name, d := range decided {
		wrapped := &verbError{"load", fmt.Errorf("app.tar: %w: details", d.err)}
		if got := exitCode(wrapped); got != d.code {
			t.Errorf("%s: exit code %d, want %d", name, got, d.code)
		}
	}
	for _, name := range sentinels(t) {
		if _, ok := decided[name]; !ok {
			t.Errorf("layers.%s has no decided exit code", name)
		}
	}
	if got := exitCode(&control.StartError{Text: "x", Code: exitBusy}); got != exitBusy {
		t.Errorf("exit code %d of a serving process is not passed on: %d", exitBusy, got)
	}
	if got := exitCode(errors.New("anything")); got != exitFailure {
		t.Errorf("unknown error: exit code %d", got)
	}
}

// sentinels returns the names of the exported errors in layers/errors.go.
func sentinels(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(testenv.ModuleRoot(t), "layers", "errors.go")
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, name := range v.Names {
				if strings.HasPrefix(name.Name, "Err") {
					names = append(names, name.Name)
				}
			}
		}
		return true
	})
	if len(names) == 0 {
		t.Fatal("no sentinels found")
	}
	return names
}
