package tenancysqlite

import (
	"cmp"
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// Databases implements [catalog.Server]. It opens no file, so Catalog and UID
// are always "". What a session is making just now is among the broken, as is
// what an interrupted one left: Drop cleans up both. Locks are not listed.
func (s *Server) Databases(ctx context.Context) ([]catalog.Found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, &fileError{"the directory", "can't be listed", explain(err)}
	}
	found := map[string]catalog.Found{}
	// Databases first: what lies beside one that can be used is no news.
	for _, e := range entries {
		prefix, name, companion := takeApart(e.Name())
		if !e.Type().IsRegular() || companion || badName(name) != nil ||
			prefix != "" && prefix != fenced && prefix != sealed {
			continue
		}
		f := catalog.Found{Name: name, Template: prefix == sealed}
		if _, twice := found[name]; twice {
			f.Broken = "it is there open and fenced, or as a template too; remove the file that is wrong"
		}
		found[name] = f
	}
	for _, e := range entries {
		prefix, name, companion := takeApart(e.Name())
		if _, known := found[name]; known || prefix == lockFile || badName(name) != nil {
			continue
		}
		f := catalog.Found{Name: name}
		switch {
		case prefix == creating:
			f.Broken = "left by an interrupted Create or Restore, or being made just now"
		case prefix == dropped:
			f.Broken = "left by an interrupted Drop"
		case prefix == dumping:
			f.Broken = "left by an interrupted Dump"
		case companion:
			f.Broken = "left by a database that is gone (a -wal, -shm or -journal file)"
		default:
			continue // a directory or a link
		}
		found[name] = f
	}
	return slices.SortedFunc(maps.Values(found), func(a, b catalog.Found) int {
		return cmp.Compare(a.Name, b.Name)
	}), nil
}

// takeApart says what the file base of the directory is.
func takeApart(base string) (prefix, name string, companion bool) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(base, p); ok {
			prefix, base = p, rest
			break
		}
	}
	for _, suffix := range companions {
		if rest, ok := strings.CutSuffix(base, suffix); ok {
			return prefix, rest, true
		}
	}
	return prefix, base, false
}
