package store

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2"

	"github.com/remitlog/remit/log"
)

// putBack is what to do about a file that is missing, or too short.
const putBack = "put it back, or restore a copy"

// openError names why Pebble does not open a store.
func openError(dir string, po *pebble.Options, err error) error {
	if isHeld(err) {
		return err
	}
	switch c, o := lostTable(err), badOptions(dir, po, err); {
	case c != nil:
		return c
	case o != nil:
		return o
	case pebble.IsCorruptionError(err):
		return AsCorrupt(err)
	default:
		return fmt.Errorf("store: open %s: %w", dir, err)
	}
}

// tableLost is what Pebble says, a line each, of tables that its MANIFEST names and that are not there, or not as long as they were.
// Pebble has no type for it.
var tableLost = regexp.MustCompile(`(?m)^L\d+: (\d+): (?:object size mismatch \(.*\): (\d+) \(disk\) != (\d+) \(MANIFEST\)|.*(?:file does not exist|no such file or directory)$)`)

// lostTable names the first of the tables that are lost; nil if none is.
func lostTable(err error) *log.CorruptError {
	all := tableLost.FindAllStringSubmatch(err.Error(), -1)
	if all == nil {
		return nil
	}
	first := all[0]
	c := &log.CorruptError{File: first[1] + ".sst", Byte: -1, Detail: "missing"}
	if first[2] != "" {
		has, _ := strconv.ParseInt(first[2], 10, 64)
		had, _ := strconv.ParseInt(first[3], 10, 64)
		c.Byte, c.Detail = min(has, had), fmt.Sprintf("%d bytes were written, %d are there", had, has)
	}
	if more := len(all) - 1; more > 0 {
		c.Detail += fmt.Sprintf("; and %d other tables are missing or of another length", more)
	}
	c.Detail += "; " + putBack
	return c
}

// badOptions names the OPTIONS file, if that is what Pebble could not read: it says so without a name. nil if it is not.
func badOptions(dir string, po *pebble.Options, err error) *log.CorruptError {
	if !pebble.IsCorruptionError(err) || pebble.ExtractDataCorruptionInfo(err) != nil {
		return nil
	}
	desc, perr := pebble.Peek(dir, po.FS)
	if perr != nil || desc.OptionsFilename == "" {
		return nil
	}
	text, perr := readAll(po.FS, desc.OptionsFilename)
	if perr == nil {
		po.EnsureDefaults()
		perr = po.CheckCompatibility(dir, string(text))
	}
	if perr == nil || !pebble.IsCorruptionError(perr) {
		return nil
	}
	return &log.CorruptError{File: filepath.Base(desc.OptionsFilename), Byte: -1, Detail: fmt.Sprintf("cannot be read: %v; %s", perr, putBack)}
}

// AsCorrupt turns what Pebble says of a checksum that does not hold, or of a table that is missing, into a *log.CorruptError. Other
// errors are returned as they are.
func AsCorrupt(err error) error {
	if err == nil || !pebble.IsCorruptionError(err) {
		return err
	}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
		return corruptFile(info.Path, err)
	}
	return corruptFile("?", err)
}

func corruptFile(path string, err error) *log.CorruptError {
	c := &log.CorruptError{File: filepath.Base(path), Byte: -1, Detail: err.Error()}
	if oserror.IsNotExist(err) {
		c.Detail = "missing; " + putBack
	}
	return c
}
