package cli

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gofrs/flock"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// SQLiteMain is a catalog.Config.MainLocker for a main database on SQLite: a
// lock on a file beside it, which the operating system takes back from a
// process that dies.
type SQLiteMain struct{}

// LockMain implements [migrate.MainLocker]. The timeouts are not used: a
// statement waits as long as the busy_timeout of db says.
func (SQLiteMain) LockMain(ctx context.Context, db *sql.DB, l migrate.Lock) (*migrate.Exclusive, error) {
	var file string
	if err := db.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&file); err != nil {
		return nil, err
	}
	if file == "" {
		return nil, errors.New("the main database is in memory; nobody else can migrate it, and nothing keeps it")
	}
	if l.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Wait)
		defer cancel()
	}
	lock := flock.New(file + ".migrating")
	const poll = 50 * time.Millisecond
	locked, err := lock.TryLockContext(ctx, poll)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", migrate.ErrLocked, context.Cause(ctx))
	case err != nil:
		return nil, err
	case !locked:
		return nil, migrate.ErrLocked
	}
	return &migrate.Exclusive{DB: db, Close: lock.Close}, nil
}
