package tenancysqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

var _ migrate.Inspector = (*Server)(nil)

// toolTables are the tables that are left out: those of migration tools, and
// our own.
var toolTables = []string{"goose_db_version", "migrations", "schema_migrations", "_tenant_schema", tenancy.MetaTable}

// Inspect implements [migrate.Inspector], with one query. SQLite keeps the text
// of the statements that made a schema: the digest is of these, without
// comments, spaces, quotes that are not needed and the case of words, and with
// each table's columns and constraints sorted. Nothing is ever Invalid. db may
// be of any driver for SQLite.
func (Engine) Inspect(ctx context.Context, db *sql.DB) (migrate.Inspection, error) {
	lines, err := schemaLines(ctx, db)
	if err != nil {
		return migrate.Inspection{}, fmt.Errorf("tenancysqlite: inspecting a database: %w", explain(err))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return migrate.Inspection{Schema: hex.EncodeToString(sum[:])}, nil
}

// Inspect is [Engine.Inspect].
func (s *Server) Inspect(ctx context.Context, db *sql.DB) (migrate.Inspection, error) {
	return Engine{}.Inspect(ctx, db)
}

// Classify is [Engine.Classify].
func (s *Server) Classify(err error) tenancy.Fault { return Engine{}.Classify(err) }

func schemaLines(ctx context.Context, db *sql.DB) (lines []string, err error) {
	// What SQLite makes by itself has no text, or is sqlite_sequence and the
	// like.
	rows, err := db.QueryContext(ctx, `
		SELECT type, name, lower(tbl_name), sql FROM sqlite_schema
		WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind, name, table, text string
		if err := rows.Scan(&kind, &name, &table, &text); err != nil {
			return nil, err
		}
		if !slices.Contains(toolTables, table) {
			lines = append(lines, fmt.Sprintf("%s %q %q %s", kind, lower(name), table, plainSQL(kind, text)))
		}
	}
	return lines, rows.Err()
}

// plainSQL makes one text of all that mean the same.
func plainSQL(kind, text string) string {
	tokens := sqlTokens(text)
	if kind != "table" {
		return strings.Join(tokens, " ")
	}
	// head ( part, part, ... ) tail
	var head, tail, part []string
	var parts []string
	depth := 0
	for _, t := range tokens {
		switch {
		case t == "(" && depth == 0 && parts == nil:
			depth, parts = 1, []string{}
		case depth == 0 && parts == nil:
			head = append(head, t)
		case depth == 0:
			tail = append(tail, t)
		case t == ")" && depth == 1, t == "," && depth == 1:
			parts, part = append(parts, strings.Join(part, " ")), nil
			if t == ")" {
				depth = 0
			}
		default:
			switch t {
			case "(":
				depth++
			case ")":
				depth--
			}
			part = append(part, t)
		}
	}
	slices.Sort(parts)
	return strings.Join(head, " ") + " ( " + strings.Join(parts, " , ") + " ) " + strings.Join(tail, " ")
}

// sqlTokens takes a statement apart: words in lower case, strings as they are,
// quoted names like words where they could be one.
func sqlTokens(text string) (tokens []string) {
	for i := 0; i < len(text); {
		n := 1
		switch c := text[i]; {
		case strings.IndexByte(" \t\n\r\f", c) >= 0:
		case strings.HasPrefix(text[i:], "--"):
			n = until(text[i:], "\n", 2)
		case strings.HasPrefix(text[i:], "/*"):
			n = until(text[i:], "*/", 2)
		case c == '\'':
			n = quoted(text[i:], c)
			tokens = append(tokens, text[i:i+n])
		case c == '"', c == '`':
			n = quoted(text[i:], c)
			tokens = append(tokens, unquote(text[i:i+n]))
		case c == '[':
			n = until(text[i:], "]", 1)
			tokens = append(tokens, unquote(text[i:i+n]))
		case isWord(c):
			for i+n < len(text) && isWord(text[i+n]) {
				n++
			}
			tokens = append(tokens, lower(text[i:i+n]))
		default:
			tokens = append(tokens, string(c))
		}
		i += n
	}
	return tokens
}

// until returns the length of text up to and with end, not before from.
func until(text, end string, from int) int {
	if i := strings.Index(text[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(text)
}

// quoted returns the length of what begins with the quote q, which stands for
// itself when doubled.
func quoted(text string, q byte) int {
	for i := 1; i < len(text); i++ {
		if text[i] != q {
			continue
		}
		if i+1 < len(text) && text[i+1] == q {
			i++
			continue
		}
		return i + 1
	}
	return len(text)
}

// unquote takes the quotes off a name that needs none.
func unquote(name string) string {
	inner := name[1:max(1, len(name)-1)]
	if inner == "" || inner[0] >= '0' && inner[0] <= '9' {
		return name
	}
	for i := range len(inner) {
		if !isWord(inner[i]) {
			return name
		}
	}
	return lower(inner)
}

// lower folds case as SQLite does: of ASCII's letters only.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
