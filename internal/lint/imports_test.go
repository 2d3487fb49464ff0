package lint

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
)

const module = "github.com/layerfs/layerfs"

// allowed says which packages of ours a package may import: dependencies run
// downwards only, and leaves do not know each other. "/..." stands for all below.
// A new package needs a line here.
var allowed = map[string][]string{
	// Leaves.
	"tarsplit":          {},
	"internal/compress": {},
	"internal/config":   {},
	"internal/control":  {"internal/flock", "internal/process"},
	"internal/deflate":  {},
	"internal/disk":     {},
	"internal/flock":    {},
	"internal/idmap":    {},
	"internal/lint":     {},
	"internal/platform": {},
	"internal/process":  {},
	"internal/hold":     {},
	"internal/shared":   {},
	"internal/spool":    {},
	"internal/testenv":  {},
	"index":             {},
	"index/tree":        {"internal/spool"},
	"internal/blob":     {"internal/disk", "internal/spool"},
	// The kernel's overlay file system.
	"internal/overlayfs": {},
	// The union of trees.
	"layers/union": {"index/tree"},
	// The writable layer of containers on the disk.
	"layers/upper":   {},
	"layers/changes": {"index/tree", "layers/union", "layers/upper"},
	"layers/overlay": {"index/tree", "internal/shared", "layers/union", "layers/upper"},
	// The one package that composes the leaves.
	"layers": {
		"index", "index/tree", "internal/blob", "internal/compress", "internal/deflate", "internal/disk", "internal/flock", "internal/idmap", "internal/overlayfs", "internal/process", "internal/spool",
		"layers/changes", "layers/graphroot", "layers/union", "layers/upper", "tarsplit",
	},
	// Ways in, out and through.
	"layers/archive":      {"internal/compress", "internal/platform", "layers"},
	"layers/graphroot":    {},
	"layers/imageservice": {"layers", "layers/registry"},
	"layers/policy":       {},
	"layers/registry":     {"internal/platform", "layers", "layers/policy"},
	"fs":                  {"fs/internal/...", "index/tree", "internal/idmap", "internal/overlayfs", "internal/shared", "layers", "layers/overlay", "layers/union", "layers/upper", "tarsplit"},
	"fs/internal/mount":   {},
	"fs/internal/wire":    {},
	// For tests only; see TestNoTestCodeInProduct.
	"internal/faultfs":      {},
	"internal/faulttest":    {"..."},
	"internal/registrytest": {"internal/testenv"},
	"internal/storetest":    {},
	"internal/mounttest":    {"..."},
	"internal/treetest":     {"..."},
	"internal/strace":       {"internal/testenv"},
	// Programs.
	"cmd/layerfs":    {"fs", "internal/config", "internal/control", "internal/hold", "internal/overlayfs", "layers", "layers/archive", "layers/changes", "layers/policy", "layers/registry"},
	"internal/bench": {"..."},
}

// offline packages must not be able to reach the network.
var offline = []string{"fs", "index", "layers", "layers/archive", "layers/policy", "layers/union", "tarsplit"}

// goList runs go list and returns its lines.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = testenv.ModuleRoot(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestDependencyDirection(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module+"/")
		may, known := allowed[pkg]
		if !known {
			t.Errorf("package %s has no place in the order of dependencies: add it to the table", pkg)
			continue
		}
		for _, imported := range words[1:] {
			ours, ok := strings.CutPrefix(imported, module+"/")
			if ok && !slices.ContainsFunc(may, func(pattern string) bool { return covers(pattern, ours) }) {
				t.Errorf("%s imports %s, which is not below it", pkg, ours)
			}
		}
	}
}

func covers(pattern, pkg string) bool {
	if dir, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(pkg, dir)
	}
	return path.Clean(pattern) == pkg
}

func TestOffline(t *testing.T) {
	for _, pkg := range offline {
		if slices.Contains(goList(t, "-deps", "./"+pkg), "net/http") {
			t.Errorf("%s reaches net/http; only the registry code may use the network", pkg)
		}
	}
}

// A test helper must not get into the product.
func TestNoTestCodeInProduct(t *testing.T) {
	for _, dep := range goList(t, "-deps", "./cmd/layerfs") {
		if dep == "testing" || strings.HasSuffix(dep, "/testenv") || strings.HasSuffix(dep, "/mounttest") || strings.HasSuffix(dep, "/registrytest") || strings.HasSuffix(dep, "/treetest") || strings.HasSuffix(dep, "/strace") || strings.HasSuffix(dep, "/faultfs") || strings.HasSuffix(dep, "/storetest") {
			t.Errorf("the command depends on %s", dep)
		}
	}
}
