package tenancytest

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// snapshot is what is in a tenant's database, read around the plugin.
type snapshot struct {
	rows  map[string]int    // how often there is a row, written with its table's name
	texts map[string]string // each text, and the table and column where it is
}

// takeSnapshot reads all tables of db's current schema, but for the one that
// says whose the database is.
func takeSnapshot(ctx context.Context, db *gorm.DB) (*snapshot, error) {
	db = db.WithContext(ctx)
	tables, err := db.Migrator().GetTables()
	if err != nil {
		return nil, err
	}
	s := &snapshot{rows: map[string]int{}, texts: map[string]string{}}
	for _, table := range tables {
		if table == tenancy.MetaTable {
			continue
		}
		if err := s.read(db, table); err != nil {
			return nil, fmt.Errorf("table %s: %w", table, err)
		}
	}
	return s, nil
}

func (s *snapshot) read(db *gorm.DB, table string) error {
	rows, err := db.Table(table).Rows()
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err counts
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		row := make([]string, len(columns))
		for i, v := range values {
			switch x := v.(type) {
			case []byte:
				v = string(x)
			case time.Time:
				v = x.UTC().Format(time.RFC3339Nano)
			}
			if text, ok := v.(string); ok {
				s.texts[text] = table + "." + columns[i]
				v = fmt.Sprintf("%q", text)
			}
			row[i] = fmt.Sprintf("%s: %v", columns[i], v)
		}
		s.rows[table+"{"+strings.Join(row, ", ")+"}"]++
	}
	return rows.Err()
}

// changes says in which rows s differs from before.
func (s *snapshot) changes(before *snapshot) (all []string) {
	for _, row := range slices.Sorted(maps.Keys(s.rows)) {
		if s.rows[row] > before.rows[row] {
			all = append(all, "has a new row "+row)
		}
	}
	for _, row := range slices.Sorted(maps.Keys(before.rows)) {
		if before.rows[row] > s.rows[row] {
			all = append(all, "has lost the row "+row)
		}
	}
	return all
}

// canary is a text that only one tenant's database has.
type canary struct{ text, at string }

// minCanary is how long a text must be to mean anything, in bytes: shorter ones
// may be in any output by chance.
const minCanary = 5

// canaries are the texts of s that are nowhere in other, not even as a part, in
// order. The tenant's id is none: it is no secret from itself.
func (s *snapshot) canaries(id string, other *snapshot) (all []canary) {
	elsewhere := strings.Join(slices.Collect(maps.Keys(other.texts)), "\x00")
	for _, text := range slices.Sorted(maps.Keys(s.texts)) {
		if len(text) >= minCanary && text != id && utf8.ValidString(text) &&
			strings.ContainsFunc(text, unicode.IsLetter) && !strings.Contains(elsewhere, text) {
			all = append(all, canary{text, s.texts[text]})
		}
	}
	return all
}

// in reports whether the output has the text, as it is or as it is written in
// JSON, HTML and URLs.
func (c canary) in(output string) bool {
	if strings.Contains(output, c.text) {
		return true
	}
	spellings := []string{html.EscapeString(c.text), url.QueryEscape(c.text), url.PathEscape(c.text)}
	if b, err := json.Marshal(c.text); err == nil {
		spellings = append(spellings, strings.Trim(string(b), `"`))
	}
	var plain strings.Builder // without HTML's escapes
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	if enc.Encode(c.text) == nil {
		spellings = append(spellings, strings.Trim(strings.TrimSpace(plain.String()), `"`))
	}
	return slices.ContainsFunc(spellings, func(s string) bool { return strings.Contains(output, s) })
}
