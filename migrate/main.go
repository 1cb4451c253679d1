package migrate

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Main brings the main database to m's target. Do that before the tenants, and
// don't go on with them when it fails. Of several processes one migrates, and
// the others wait. Of opt, the timeouts are used.
func Main(ctx context.Context, db *sql.DB, l MainLocker, m Migrator, opt Options) (Result, error) {
	opt = opt.withDefaults()
	res := Result{Tenant: "", Server: "main", Attempts: 1, Status: StatusFailed}
	began := time.Now()
	err := migrateMain(ctx, db, l, m, opt, &res)
	res.Took = time.Since(began)
	if err != nil {
		res.Error = err.Error()
		return res, fmt.Errorf("migrate: the main database: %w", err)
	}
	res.Status = StatusDone
	return res, nil
}

// mainWait bounds the wait for another process that migrates the main database:
// it may hang, and then somebody must be told.
const mainWait = 5 * time.Minute

func migrateMain(ctx context.Context, db *sql.DB, l MainLocker, m Migrator, opt Options, res *Result) (err error) {
	target, _ := m.Target()
	// The common case needs no lock, and no right to change tables.
	if res.From, err = m.Current(ctx, db); err != nil {
		return err
	}
	res.To = res.From
	if res.From >= target { // a newer program may have been here
		return nil
	}
	ex, err := l.LockMain(ctx, db, Lock{
		LockTimeout: opt.LockTimeout, StatementTimeout: opt.StatementTimeout, Wait: mainWait})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := ex.Close(); err == nil {
			err = closeErr
		}
	}()
	res.Applied, err = m.Up(ctx, ex.DB, target)
	if err == nil {
		res.To = target
	} else if n := len(res.Applied); n > 0 {
		res.To = res.Applied[n-1].Version
	}
	return err
}
