package tenancygoose

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"

	"github.com/pressly/goose/v3"
)

// fingerprint stands for all that makes the schema. goose has no checksums: it
// doesn't notice when a file changes that was applied already.
func fingerprint(cfg Config, sqlFiles, goFiles files) string {
	h := sha256.New()
	// With the lengths, two lists of parts are never one text.
	part := func(kind, name string, content []byte) {
		fmt.Fprintf(h, "%s %d %d\n%s%s", kind, len(name), len(content), name, content)
	}
	for _, f := range []files{sqlFiles, goFiles} {
		for _, name := range f.names() {
			// git may check out either line ending, and goose reads both the
			// same (goose internal/sqlparser, ParseSQLMigration, reads lines).
			part("file", name, bytes.ReplaceAll(f[name], []byte("\r\n"), []byte("\n")))
		}
	}
	byVersion := slices.SortedFunc(slices.Values(cfg.Go), func(a, b *goose.Migration) int {
		return cmp.Compare(a.Version, b.Version)
	})
	for _, m := range byVersion {
		part("go", fmt.Sprint(m.Version), []byte(path.Base(m.Source)))
	}
	// A template whose versions stand in another table looks empty to goose.
	part("table", cfg.Table, nil)
	part("revision", cfg.Revision, nil)
	return "goose-" + hex.EncodeToString(h.Sum(nil))
}
