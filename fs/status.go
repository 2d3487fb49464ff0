package fs

import (
	"encoding/json"
	"os"
	"runtime"
	"sync"
	"time"
)

// statusName is the file in .layerfs that says what the mount is and does.
const statusName = "status.json"

// maxRenderings is how many renderings of status.json are kept for those who have one open.
const maxRenderings = 16

// statusFiles keeps the texts that were shown as status.json. Each look-up gets a new text under a new number, so the
// kernel's memory of older ones does no harm.
type statusFiles struct {
	info    func() any // what to render
	resumed bool       // the kernel may know renderings of a process before

	mu    sync.Mutex
	last  *counter
	kept  map[uint64]*rendering
	order []uint64 // of kept, the oldest first
}

// rendering is one text of status.json.
type rendering struct {
	text []byte
	time time.Time
}

// at returns a rendering by its node, nil for other nodes.
func (s *statusFiles) at(node uint64) *rendering {
	if k, slot, _ := splitID(node); k != kindFixed || slot != 1 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.kept[node]; r != nil || !s.resumed || int64(node-statusID) > s.last.Load() {
		return r
	}
	// Of the process before; who has it open gets what is true now.
	return s.keepLocked(node, s.text())
}

// text makes a new text. Errors are told in it.
func (s *statusFiles) text() []byte {
	text, err := json.MarshalIndent(s.info(), "", "  ")
	if err != nil {
		text = []byte(err.Error()) // cannot be: see status
	}
	return append(text, '\n')
}

// render makes a new text and returns its node.
func (s *statusFiles) render() uint64 {
	text := s.text()
	s.mu.Lock()
	defer s.mu.Unlock()
	node := statusID + uint64(uint32(s.last.Add(1)))
	s.keepLocked(node, text)
	return node
}

// keepLocked keeps a text under a node. Preconditions: s.mu is held.
func (s *statusFiles) keepLocked(node uint64, text []byte) *rendering {
	if s.kept == nil {
		s.kept = map[uint64]*rendering{}
	}
	r := &rendering{text, time.Now()}
	s.kept[node] = r
	s.order = append(s.order, node)
	if len(s.order) > maxRenderings {
		delete(s.kept, s.order[0])
		s.order = s.order[1:]
	}
	return r
}

// status is the content of status.json; field names are part of what users rely on.
type status struct {
	Mountpoint string    `json:"mountpoint"`
	PID        int       `json:"pid"`
	Store      string    `json:"store"`
	Driver     string    `json:"driver"`
	Since      time.Time `json:"since"`
	Image      string    `json:"image,omitempty"`    // of a mount of one image
	Handover   any       `json:"handover,omitempty"` // who keeps the mount should the process die
	Options    struct {
		IDMap       string `json:"idmap"`
		AllowOther  bool   `json:"allow_other"`
		Passthrough bool   `json:"passthrough"`
	} `json:"options"`
	Generation uint64            `json:"generation"` // of the store's catalogue
	Images     int               `json:"images"`
	Names      int               `json:"names"`
	Layers     int               `json:"layers"`
	OpenLayers int               `json:"open_layers"`
	Lingering  int               `json:"lingering_layers"` // removed, but in use
	Requests   map[string]uint64 `json:"requests"`
	Goroutines int               `json:"goroutines"` // of the serving process
	Containers *containersStatus `json:"containers,omitempty"`
}

// containersStatus is about the mount of the containers.
type containersStatus struct {
	Mountpoint string            `json:"mountpoint"`
	Error      string            `json:"error,omitempty"`     // why they are not shown
	ReadOnly   map[string]string `json:"read_only,omitempty"` // by name: why a container can only be read
	Requests   map[string]uint64 `json:"requests,omitempty"`
}

func (s *Server) status() any {
	st := s.Stats()
	out := status{
		Mountpoint: s.dir, PID: os.Getpid(), Store: s.fs.store.Root(), Driver: "fuse", Since: s.fs.started, Image: s.image,
		Generation: st.Generation, Images: st.Images, Names: st.Names, Layers: st.Layers,
		OpenLayers: st.OpenLayers, Lingering: st.Lingering, Requests: st.Requests,
		Goroutines: runtime.NumGoroutine(),
	}
	out.Options.IDMap, out.Options.AllowOther, out.Options.Passthrough = s.fs.owners.text, s.allowOther, s.fs.backing != nil
	if s.process != nil {
		out.Handover = s.process()
	}
	if s.fs.beside != nil {
		out.Containers = s.fs.beside.status()
	}
	return out
}
