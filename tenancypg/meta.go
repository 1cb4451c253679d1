package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// metaTable is schema-qualified: it is read on connections of any search_path.
const metaTable = "public." + tenancy.MetaTable

// readSimple runs one query by the simple protocol, in one round trip and
// without a prepared statement, and returns its first row; nil if there is
// none, or no such table.
func readSimple(ctx context.Context, pc *pgconn.PgConn, query string) ([][]byte, error) {
	results, err := pc.Exec(ctx, query).ReadAll()
	if code(err) == "42P01" { // undefined_table, for a missing schema too
		return nil, nil
	}
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return nil, err
	}
	return results[0].Rows[0], nil
}

// notOurs says of err what to do where somebody else has made a table of that
// name, in a database that is adopted: undefined_column, and for Mark that there
// is no primary key as ours (invalid_column_reference), or that it is no table
// (wrong_object_type), or has other columns (not_null_violation,
// datatype_mismatch).
func notOurs(err error) error {
	var number *strconv.NumError
	switch code(err) {
	case "42703", "42P10", "42809", "23502", "42804":
	case "55000": // "cannot insert into view", and much else
		if !strings.Contains(err.Error(), tenancy.MetaTable) {
			return err
		}
	default:
		if !errors.As(err, &number) {
			return err
		}
	}
	return fmt.Errorf("%s is a table or view that this package did not make; rename or drop it, then run this again: %w", metaTable, err)
}

var _ tenancy.IdentityConn = (*conn)(nil)

// Identity implements [tenancy.IdentityConn]. It is one round trip, also
// through a PgBouncer in transaction mode. A table of that name that has other
// columns says as little as none.
func (c *conn) Identity(ctx context.Context) (i tenancy.Identity, err error) {
	row, err := readSimple(ctx, c.Conn().PgConn(), "SELECT uid, generation FROM "+metaTable)
	if code(err) == "42703" {
		return i, nil
	}
	if err != nil || row == nil {
		return i, err
	}
	if i.Generation, err = strconv.ParseInt(string(row[1]), 10, 64); err != nil {
		return tenancy.Identity{}, fmt.Errorf("tenancypg: %s's generation: %w", metaTable, err)
	}
	i.UID = string(row[0])
	return i, nil
}

func readMeta(ctx context.Context, pc *pgx.Conn) (m catalog.Meta, err error) {
	row, err := readSimple(ctx, pc.PgConn(), "SELECT uid, generation, catalog FROM "+metaTable)
	if err != nil || row == nil {
		return m, notOurs(err)
	}
	m.UID, m.Catalog = string(row[0]), string(row[2])
	m.Generation, err = strconv.ParseInt(string(row[1]), 10, 64)
	return m, notOurs(err)
}

const commentPrefix = "tenancy "

// comment is what a database's comment says of it: "tenancy catalog=... uid=...
// generation=...", each value as in a URL's query.
func comment(m catalog.Meta) string {
	return fmt.Sprintf("%scatalog=%s uid=%s generation=%d",
		commentPrefix, url.QueryEscape(m.Catalog), url.QueryEscape(m.UID), m.Generation)
}

// parseComment returns the zero Meta for a comment that is not ours.
func parseComment(s string) (m catalog.Meta) {
	rest, ok := strings.CutPrefix(s, commentPrefix)
	if !ok {
		return m
	}
	for field := range strings.FieldsSeq(rest) {
		key, value, _ := strings.Cut(field, "=")
		value, err := url.QueryUnescape(value)
		switch {
		case err != nil:
			return catalog.Meta{}
		case key == "catalog":
			m.Catalog = value
		case key == "uid":
			m.UID = value
		case key == "generation":
			m.Generation, _ = strconv.ParseInt(value, 10, 64) // an older comment has none
		}
	}
	return m
}

// Mark implements [catalog.Session]. The table and the database's comment
// change in one transaction. A generation below the one that is there is an
// error. With the first Mark the application gets its rights to what will be
// made in the database; see Open.
func (ses *session) Mark(ctx context.Context, m catalog.Meta) error {
	doing := fmt.Sprintf("marking %q", ses.name)
	if m.UID == "" || m.Catalog == "" || strings.IndexByte(m.UID+m.Catalog, 0) >= 0 {
		return explain(doing, errors.New("it needs a catalog and a UID, without NUL"))
	}
	f, err := ses.facts(ctx, ses.name)
	if err != nil {
		return explain(doing, err)
	}
	if err := ses.inTenant(ctx, func(pc *pgx.Conn) error { return ses.mark(ctx, pc, m, parseComment(f.comment)) }); err != nil {
		return explain(doing, err)
	}
	return nil
}

func (ses *session) mark(ctx context.Context, pc *pgx.Conn, m, commented catalog.Meta) error {
	was, err := readMeta(ctx, pc)
	if err != nil {
		return err
	}
	bare := was == (catalog.Meta{})
	if bare {
		was = commented
	}
	mine := was.Catalog == m.Catalog && was.UID == m.UID
	if was != (catalog.Meta{}) && !mine && m.Replaces != "*" && m.Replaces != was.UID {
		return fmt.Errorf("%w: it says catalog %q, tenant %s", catalog.ErrForeign, was.Catalog, was.Identity)
	}
	if was.UID == m.UID && m.Generation < was.Generation {
		return fmt.Errorf("its generation is %d already, and can't go back to %d", was.Generation, m.Generation)
	}
	grants, err := ses.missingGrants(ctx, pc)
	if err != nil {
		return err
	}
	var batch []string
	if bare {
		// one is the primary key so that the table can be replicated, and has
		// one value so that there is one row.
		batch = append(batch,
			"CREATE TABLE IF NOT EXISTS "+metaTable+` (
				uid text NOT NULL, generation bigint NOT NULL, catalog text NOT NULL,
				one boolean PRIMARY KEY DEFAULT true CHECK (one))`)
	}
	batch = append(batch,
		"INSERT INTO "+metaTable+" (uid, generation, catalog) VALUES ("+
			literal(m.UID)+", "+strconv.FormatInt(m.Generation, 10)+", "+literal(m.Catalog)+`)
			ON CONFLICT (one) DO UPDATE SET uid = excluded.uid, generation = excluded.generation, catalog = excluded.catalog`)
	if ses.differ() && bare {
		// Default privileges may have given more.
		batch = append(batch,
			"REVOKE ALL ON "+metaTable+" FROM PUBLIC, "+quote(ses.s.appRole),
			"GRANT SELECT ON "+metaTable+" TO "+quote(ses.s.appRole))
	}
	batch = append(batch, grants...)
	batch = append(batch, "COMMENT ON DATABASE "+ses.ident+" IS "+literal(comment(m)))
	return notOurs(execSimple(ctx, pc, strings.Join(batch, ";\n")))
}

// Owner implements [catalog.Session]. Of a database that takes no connections,
// and of one that refuses the administrator's, it reads the comment. It is the
// zero Meta for one that is not there.
func (ses *session) Owner(ctx context.Context) (m catalog.Meta, err error) {
	doing := fmt.Sprintf("reading whose %q is", ses.name)
	f, err := ses.facts(ctx, ses.name)
	switch {
	case err != nil:
		return m, explain(doing, err)
	case !f.there:
		return m, nil
	}
	commented := parseComment(f.comment)
	if f.invalid || !f.allow && commented != (catalog.Meta{}) {
		return commented, nil
	}
	err = ses.inTenant(ctx, func(pc *pgx.Conn) error {
		m, err = readMeta(ctx, pc)
		return err
	})
	var refused *pgconn.ConnectError
	if errors.As(err, &refused) && code(err) != "" && commented != (catalog.Meta{}) {
		return commented, nil
	}
	if err != nil {
		return catalog.Meta{}, explain(doing, err)
	}
	return m, nil
}
