package index

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// The journal, index.journal, says again what index.db says, without the bodies: a
// header line, a base of all records, and then one line per committed change. It is
// what the index is rebuilt from when index.db is lost or damaged. The index is
// what counts: a change is written down after it is committed, and when a writer
// finds that the last line is not of the generation before his own, because
// somebody was killed between the two, he writes a new base. So does the first writer
// after a boot: lines are not waited for, and a power failure may have torn any of them.
//
//	layerfs journal 1 <16 hex digits: where the base ends>
//	<JSON of an entry> <16 hex digits: generation> <8 hex digits: CRC-32C of what is before it>
//	...
const journalHeader = "layerfs journal 1 %016x\n"

const (
	journalHeaderLen = len("layerfs journal 1 ") + 16 + 1
	journalTailLen   = 1 + 16 + 1 + 8 + 1
	// journalSlack is how long the changes may get before a new base is worth it;
	// they must also be several times as long as the base.
	journalSlack  = 256 << 10
	journalFactor = 4
	journalChunk  = 64 // records in a line of the base
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An entry is one line of the journal.
type entry struct {
	Slots   map[string]uint64 `json:"slots"` // the last ones given
	Changes []change          `json:"changes"`
	Boot    string            `json:"boot"` // of the machine, when the line was written; the last field
}

// A change of one record. Value is the JSON text of the record, or the bytes of
// what has no text as a JSON string; null says that the record was removed.
type change struct {
	Bucket string          `json:"bucket"`
	Key    []byte          `json:"key"`
	Value  json.RawMessage `json:"value"`
}

// journaled are the buckets whose records the journal has; those of names follow
// from the records.
var journaled = [][]byte{bucketNames, bucketImages, bucketLayers, bucketContainers, bucketLayerRecords, bucketData, bucketForms}

// textual says whether the records of a bucket are a head and a text.
func textual(bucket []byte) bool {
	return !bytes.Equal(bucket, bucketData) && !bytes.Equal(bucket, bucketForms)
}

var slotKeys = [][]byte{keySlotLayer, keySlotView, keySlotContainer}

func (db *DB) journalPath() string {
	return filepath.Join(filepath.Dir(db.path), "index.journal")
}

// note remembers a change for the journal; raw is nil when the record was removed.
func (tx *Tx) note(bucket, key, raw []byte) {
	tx.visible = true
	tx.changes = append(tx.changes, change{Bucket: string(bucket), Key: bytes.Clone(key), Value: journalValue(bucket, raw)})
}

// journalValue returns a record as the journal has it.
func journalValue(bucket, raw []byte) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	if textual(bucket) {
		if _, text, err := splitHead(bucket, nil, raw); err == nil {
			return bytes.Clone(text)
		}
	}
	text, _ := json.Marshal(raw) // bytes become a string in base64
	return text
}

// record writes down what the transaction changed, or a new base. What goes wrong
// is not an error of the change, which is committed; the next writer makes it good.
//
// A line is on its way to the disk when record returns, but not waited for: only a
// power failure can lose a line, of the last seconds, and a sync more would make every
// small change half as slow again.
func (db *DB) record(b *bolt.DB, tx *Tx) {
	if !tx.visible {
		return
	}
	f, err := os.OpenFile(db.journalPath(), os.O_RDWR|os.O_APPEND, 0)
	if err == nil {
		defer f.Close()
		if appendable(f, tx.generation-1, db.bootID()) && writeEntry(f, &entry{tx.slots, tx.changes, db.bootID()}, tx.generation) == nil {
			_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
			return
		}
	}
	_ = b.View(func(btx *bolt.Tx) error {
		root, err := rootOf(btx)
		if err != nil || root == nil {
			return err
		}
		return db.writeBase(&Tx{root: root})
	})
}

// appendable reports whether the journal ends with the generation, was last written
// since the machine has booted, and is not too long.
func appendable(f *os.File, generation uint64, boot string) bool {
	wrote := bootSuffix(boot)
	info, err := f.Stat()
	if err != nil || info.Size() < int64(journalHeaderLen+len(wrote)+journalTailLen) {
		return false
	}
	head, tail := make([]byte, journalHeaderLen), make([]byte, len(wrote)+journalTailLen)
	if _, err := f.ReadAt(head, 0); err != nil {
		return false
	}
	base, err := parseJournalHeader(head)
	if err != nil || info.Size()-base > max(journalSlack, journalFactor*base) {
		return false
	}
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		return false
	}
	tail, ok := bytes.CutPrefix(tail, wrote)
	if !ok {
		return false
	}
	got, _, err := parseTail(tail)
	return err == nil && got == generation
}

// bootSuffix ends the JSON of a line that was written during this boot.
func bootSuffix(boot string) []byte {
	text, _ := json.Marshal(boot) // of a string
	return fmt.Appendf(nil, `"boot":%s}`, text)
}

// refuseOlder returns ErrDamaged when the journal knows changes that are not in the
// index: it was removed, or emptied, or bbolt has fallen back on an older state
// because the newer one is damaged. What is written now would be lost in the repair,
// and the journal with it.
func (db *DB) refuseOlder(tx *Tx) error {
	f, err := os.Open(db.journalPath())
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < int64(journalHeaderLen+journalTailLen) {
		return nil
	}
	tail := make([]byte, journalTailLen)
	if _, err := f.ReadAt(tail, info.Size()-int64(journalTailLen)); err != nil {
		return nil
	}
	if got, _, err := parseTail(tail); err == nil && got > tx.Generation() {
		return fmt.Errorf("%w: %s has lost the changes from %d to %d; run `layerfs check --repair`", ErrDamaged, db.path, tx.Generation(), got)
	}
	return nil
}

func parseJournalHeader(line []byte) (base int64, err error) {
	n, err := fmt.Sscanf(string(line), journalHeader, &base)
	if err != nil || n != 1 || base < int64(journalHeaderLen) {
		return 0, fmt.Errorf("%w: the journal does not begin as one", ErrDamaged)
	}
	return base, nil
}

// parseTail takes the generation and the checksum from the end of a line.
func parseTail(tail []byte) (generation uint64, sum uint32, err error) {
	if len(tail) != journalTailLen || tail[0] != ' ' || tail[17] != ' ' || tail[journalTailLen-1] != '\n' {
		return 0, 0, ErrDamaged
	}
	generation, err = strconv.ParseUint(string(tail[1:17]), 16, 64)
	if err != nil {
		return 0, 0, ErrDamaged
	}
	n, err := strconv.ParseUint(string(tail[18:26]), 16, 32)
	if err != nil {
		return 0, 0, ErrDamaged
	}
	return generation, uint32(n), nil
}

func writeEntry(w io.Writer, e *entry, generation uint64) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	text = fmt.Appendf(text, " %016x", generation)
	text = fmt.Appendf(text, " %08x\n", crc32.Checksum(text, castagnoli))
	_, err = w.Write(text)
	return err
}

// writeBase replaces the journal by one that holds all records, and syncs it.
func (db *DB) writeBase(tx *Tx) (err error) {
	temp := db.journalPath() + ".tmp"
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	w := bufio.NewWriterSize(f, 256<<10)
	fmt.Fprintf(w, journalHeader, 0)
	if err := tx.writeAll(w, db.bootID()); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, journalHeader, size), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(temp, db.journalPath()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(db.path))
}

// writeAll writes all records as entries.
func (tx *Tx) writeAll(w io.Writer, boot string) error {
	e := entry{Slots: tx.lastSlots(), Boot: boot}
	flush := func() error {
		err := writeEntry(w, &e, tx.Generation())
		e.Changes = e.Changes[:0]
		return err
	}
	for _, name := range journaled {
		b := tx.bucket(name)
		if b == nil {
			continue
		}
		err := b.ForEach(func(k, raw []byte) error {
			e.Changes = append(e.Changes, change{string(name), bytes.Clone(k), journalValue(name, raw)})
			if len(e.Changes) < journalChunk {
				return nil
			}
			return flush()
		})
		if err != nil {
			return err
		}
	}
	return flush()
}

func (tx *Tx) lastSlots() map[string]uint64 {
	slots := map[string]uint64{}
	for _, key := range slotKeys {
		slots[string(key)] = tx.counter(key)
	}
	return slots
}

// A Journal is what the journal says: where in it the newest text of each record
// is.
type Journal struct {
	f          *os.File
	places     map[journalKey]journalPlace
	slots      map[string]uint64
	generation uint64
	boot       string // in which the last readable line was written
	baseLost   bool   // something of the base cannot be read
	// Whole says that the base and the order of the changes are complete; Lost are
	// lines that cannot be read.
	Whole bool
	Lost  int
}

type journalKey struct{ bucket, key string }

type journalPlace struct {
	off int64
	len int
}

// OpenJournal reads the journal. It returns fs.ErrNotExist when there is none. The
// caller closes it.
func (db *DB) OpenJournal() (*Journal, error) {
	f, err := os.Open(db.journalPath())
	if err != nil {
		return nil, err
	}
	j := &Journal{f: f, places: map[journalKey]journalPlace{}, slots: map[string]uint64{}, Whole: true}
	if err := j.read(); err != nil {
		f.Close()
		return nil, fmt.Errorf("journal of the index: %w", err)
	}
	return j, nil
}

// Close closes the journal.
func (j *Journal) Close() error { return j.f.Close() }

// Generation is that of the last change.
func (j *Journal) Generation() uint64 { return j.generation }

func (j *Journal) read() error {
	r := bufio.NewReaderSize(j.f, 256<<10)
	head, err := r.ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	base, err := parseJournalHeader(head)
	if err != nil {
		j.Whole, j.baseLost, base = false, true, 0
	}
	for off := int64(len(head)); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			j.baseLost = j.baseLost || off < base
			j.Whole = j.Whole && !j.baseLost && j.Lost == 0
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !j.line(line, off) {
			// A line without an end is of a writer who was killed: his change may be in
			// the index, but nobody was told so.
			if line[len(line)-1] == '\n' || off < base {
				j.Lost++
				j.baseLost = j.baseLost || off < base
			}
		}
		off += int64(len(line))
	}
}

// line takes one line over; false when it is damaged.
func (j *Journal) line(line []byte, off int64) bool {
	n := len(line) - journalTailLen
	if n <= 0 {
		return false
	}
	generation, sum, err := parseTail(line[n:])
	if err != nil || crc32.Checksum(line[:n+17], castagnoli) != sum {
		return false
	}
	var e entry
	if json.Unmarshal(line[:n], &e) != nil {
		return false
	}
	j.generation, j.boot = max(j.generation, generation), e.Boot
	for name, slot := range e.Slots {
		j.slots[name] = max(j.slots[name], slot)
	}
	for _, c := range e.Changes {
		key := journalKey{c.Bucket, string(c.Key)}
		if string(c.Value) == "null" {
			delete(j.places, key)
			continue
		}
		// The text is in the line as it is: encoding/json has compacted it before.
		at := bytes.Index(line, c.Value)
		if at < 0 {
			return false
		}
		j.places[key] = journalPlace{off + int64(at), len(c.Value)}
	}
	return true
}

// value reads the newest text of a record.
func (j *Journal) value(p journalPlace) ([]byte, error) {
	text := make([]byte, p.len)
	_, err := j.f.ReadAt(text, p.off)
	return text, err
}

// each calls fn for every record of a bucket, in no order.
func (j *Journal) each(bucket []byte, fn func(key, text []byte) error) error {
	for k, p := range j.places {
		if k.bucket != string(bucket) {
			continue
		}
		text, err := j.value(p)
		if err != nil {
			return err
		}
		if err := fn([]byte(k.key), text); err != nil {
			return err
		}
	}
	return nil
}

// noJournal reports that there is no journal, as in a store of an older layerfs.
func noJournal(err error) bool { return errors.Is(err, fs.ErrNotExist) }
