package lint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
)

// A sourceFile is one Go file of the repository.
type sourceFile struct {
	path  string // from the module root
	test  bool
	lines int
	ast   *ast.File
}

var fset = token.NewFileSet()

// sources parses all Go files outside testdata and hidden directories.
func sources(t *testing.T) []sourceFile {
	t.Helper()
	root := testenv.ModuleRoot(t)
	var files []sourceFile
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() {
			if path != root && (name[0] == '.' || name == "testdata" || name == "demo" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, path, raw, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files = append(files, sourceFile{rel, strings.HasSuffix(name, "_test.go"), bytes.Count(raw, []byte("\n")), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files found", len(files))
	}
	return files
}

// maxLines is where a file must be split by noun.
const maxLines = 600

func TestFileSize(t *testing.T) {
	for _, f := range sources(t) {
		if f.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: split it by noun", f.path, f.lines, maxLines)
		}
	}
}

func TestPackageComments(t *testing.T) {
	comments := map[string][]string{}
	packages := map[string]bool{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		dir := filepath.Dir(f.path)
		packages[dir] = true
		if f.ast.Doc != nil {
			comments[dir] = append(comments[dir], f.path)
			text := f.ast.Doc.Text()
			if want := "Package " + f.ast.Name.Name + " "; f.ast.Name.Name != "main" && !strings.HasPrefix(text, want) {
				t.Errorf("%s: the package comment does not begin with %q", f.path, want)
			}
		}
	}
	for dir := range packages {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("package %s has %d package comments, want one: %v", dir, n, comments[dir])
		}
	}
}

// Every exported name is documented, and the comment begins with it.
func TestDocComments(t *testing.T) {
	for _, f := range sources(t) {
		if f.test || f.ast.Name.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && !obvious(d) {
					wantDoc(t, d.Pos(), d.Name.Name, d.Doc)
				}
			case *ast.GenDecl:
				checkGenDecl(t, d)
			}
		}
	}
}

// checkGenDecl checks types, and variables and constants, for which a comment on
// their group or at the end of the line will do.
func checkGenDecl(t *testing.T, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if doc := s.Doc; s.Name.IsExported() {
				if doc == nil {
					doc = d.Doc
				}
				wantDoc(t, s.Pos(), s.Name.Name, doc)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
					t.Errorf("%s: %s has no comment", fset.Position(s.Pos()), name.Name)
				}
			}
		}
	}
}

func wantDoc(t *testing.T, pos token.Pos, name string, doc *ast.CommentGroup) {
	t.Helper()
	if doc == nil {
		t.Errorf("%s: %s has no comment", fset.Position(pos), name)
		return
	}
	first := strings.Fields(strings.TrimSpace(doc.Text()))
	for _, word := range first[:min(2, len(first))] { // "An Image is" is fine
		if strings.Trim(word, ",:.'s") == strings.Trim(name, "s") {
			return
		}
	}
	t.Errorf("%s: the comment of %s does not begin with its name", fset.Position(pos), name)
}

// exportedReceiver says whether a method can be seen in the documentation.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	x := d.Recv.List[0].Type
	for {
		switch v := x.(type) {
		case *ast.StarExpr:
			x = v.X
		case *ast.IndexExpr:
			x = v.X
		case *ast.IndexListExpr:
			x = v.X
		case *ast.Ident:
			return v.IsExported()
		default:
			return false
		}
	}
}

// obvious methods are those of well-known interfaces, which say what they do.
func obvious(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	switch d.Name.Name {
	case "String", "Error", "Unwrap", "Is", "Len", "Less", "Swap":
		return true
	}
	return false
}

// An error begins with its subject: "failed to" says nothing, and a capital or a
// full stop looks odd once it is wrapped.
func TestErrorStrings(t *testing.T) {
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 || !makesError(call.Fun) {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Error(err)
				return true
			}
			lower := strings.ToLower(text)
			for _, bad := range []string{"failed to", "unable to", "could not", "couldn't", "error "} {
				if strings.HasPrefix(lower, bad) || strings.Contains(lower, ": "+bad) {
					t.Errorf("%s: error %q: begin with the subject, not with %q", fset.Position(lit.Pos()), text, bad)
				}
			}
			if strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "...") {
				t.Errorf("%s: error %q ends with a full stop", fset.Position(lit.Pos()), text)
			}
			return true
		})
	}
}

func makesError(fun ast.Expr) bool {
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && (pkg.Name == "errors" && sel.Sel.Name == "New" || pkg.Name == "fmt" && sel.Sel.Name == "Errorf")
}

// Comments that put work off are forgotten: an issue is not.
func TestNoPostponedWork(t *testing.T) {
	words := []string{"TO" + "DO", "FIX" + "ME", "X" + "XX"}
	for _, f := range sources(t) {
		for _, group := range f.ast.Comments {
			for _, word := range words {
				if strings.Contains(group.Text(), word) {
					t.Errorf("%s: %s in a comment: do it, or open an issue", fset.Position(group.Pos()), word)
				}
			}
		}
	}
}
