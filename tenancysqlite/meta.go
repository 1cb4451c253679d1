package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// The table has one row by its primary key.
const createMeta = "CREATE TABLE IF NOT EXISTS " + tenancy.MetaTable + ` (
	only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
	uid TEXT NOT NULL,
	generation INTEGER NOT NULL,
	catalog TEXT NOT NULL
)`

// Mark implements [catalog.Session]. A generation lower than the one that is
// written is an error.
func (s *session) Mark(ctx context.Context, m catalog.Meta) error {
	return s.fail("can't be marked", s.mark(ctx, m))
}

func (s *session) mark(ctx context.Context, m catalog.Meta) error {
	if m.UID == "" {
		return errors.New("the mark has no UID")
	}
	db, err := s.db(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	// What is right already needs no write, which a template refuses.
	if old, err := readMark(ctx, db); err != nil {
		return err
	} else if old.Catalog == m.Catalog && old.Identity == m.Identity {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil) // immediate: nobody writes between
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, createMeta); err != nil {
		return err
	}
	old, err := readMark(ctx, tx)
	if err != nil {
		return err
	}
	if err := mayMark(old, m); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT OR REPLACE INTO "+tenancy.MetaTable+
		" (only_row, uid, generation, catalog) VALUES (1, ?, ?, ?)", m.UID, m.Generation, m.Catalog)
	if err != nil {
		return err
	}
	return tx.Commit()
}

// mayMark returns an error if m must not take old's place.
func mayMark(old, m catalog.Meta) error {
	same := old.Catalog == m.Catalog && old.UID == m.UID
	switch {
	case old == (catalog.Meta{}):
		return nil
	case same && m.Generation < old.Generation:
		return fmt.Errorf("its generation is %d already, and can't go back to %d", old.Generation, m.Generation)
	case same, m.Replaces == "*", m.Replaces != "" && m.Replaces == old.UID:
		return nil
	}
	return fmt.Errorf("%w: it is marked %s of catalog %q", catalog.ErrForeign, old.Identity, old.Catalog)
}

// Owner implements [catalog.Session].
func (s *session) Owner(ctx context.Context) (catalog.Meta, error) {
	m, err := s.owner(ctx)
	return m, s.fail("can't be asked for its owner", err)
}

func (s *session) owner(ctx context.Context) (m catalog.Meta, err error) {
	db, err := s.db(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	defer db.Close()
	return readMark(ctx, db)
}

// queryer is a sql.DB or a sql.Tx.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// readMark returns the zero Meta if there is none.
func readMark(ctx context.Context, q queryer) (m catalog.Meta, err error) {
	if there, err := hasMeta(ctx, q); err != nil || !there {
		return m, err
	}
	err = q.QueryRowContext(ctx, "SELECT uid, generation, catalog FROM "+tenancy.MetaTable).Scan(&m.UID, &m.Generation, &m.Catalog)
	if errors.Is(err, sql.ErrNoRows) {
		return catalog.Meta{}, nil
	}
	if err != nil {
		return catalog.Meta{}, fmt.Errorf("reading %s: %w", tenancy.MetaTable, err)
	}
	return m, nil
}

// errNotOurs is a table of the name that somebody else made, in a database
// that is adopted.
var errNotOurs = errors.New("it has a table or view " + tenancy.MetaTable + " that this package did not make; rename or drop that, then do it again")

// hasMeta reports whether the table is there. One that does not have our
// columns is errNotOurs.
func hasMeta(ctx context.Context, q queryer) (there bool, err error) {
	var ours bool
	err = q.QueryRowContext(ctx, `
		SELECT count(*) > 0, coalesce(min(type = 'table'), 0) AND (
			SELECT count(*) = 4 FROM pragma_table_info(?1) WHERE name IN ('only_row', 'uid', 'generation', 'catalog'))
		FROM sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = ?1`, tenancy.MetaTable).Scan(&there, &ours)
	if err == nil && there && !ours {
		return true, errNotOurs
	}
	return there, err
}

// removeMark takes a template's mark off its copy.
func removeMark(ctx context.Context, db *sql.DB) error {
	there, err := hasMeta(ctx, db)
	if err != nil || !there {
		return err
	}
	_, err = db.ExecContext(ctx, "DELETE FROM "+tenancy.MetaTable)
	return err
}
