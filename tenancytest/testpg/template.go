package testpg

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// Template implements [tenancytest.Server]. A template is built under a name of
// the run, and gets its own name last: who dies before that leaves a database
// of a dead run.
func (s *server) Template(ctx context.Context, key string, shared bool, build func(context.Context, *sql.DB) error) (string, error) {
	name, err := s.template(ctx, key, shared, build)
	if err != nil {
		return "", fmt.Errorf("testpg: %w", err)
	}
	return name, nil
}

func (s *server) template(ctx context.Context, key string, shared bool, build func(context.Context, *sql.DB) error) (name string, err error) {
	temp := s.next()
	if !shared {
		return temp, s.build(ctx, temp, build)
	}
	// A role may not copy another one's.
	sum := sha256.Sum256([]byte(s.role + " " + key))
	name = templateName + hex.EncodeToString(sum[:10])
	err = s.locked(ctx, name, func() error {
		there, err := s.use(ctx, name)
		if err != nil || there {
			return err
		}
		if err := s.build(ctx, temp, build); err != nil {
			return err
		}
		if err := s.exec(ctx, comment(temp, usedComment+fmt.Sprint(time.Now().Unix()))); err != nil {
			return err
		}
		err = s.exec(ctx, "ALTER DATABASE "+quote(temp)+" RENAME TO "+quote(name))
		if sqlerr.State(err) == "42P04" { // duplicate_database: of one who has another maintenance database, and so other locks
			return nil
		}
		return err
	})
	return name, err
}

// locked runs f while it has the lock of what, which others wait for.
func (s *server) locked(ctx context.Context, what string, f func() error) (err error) {
	conn, err := s.admin.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key(what)); err != nil {
		return err
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", key(what))
		err = errors.Join(err, unlockErr)
	}()
	return f()
}

// use reports whether the template is there, and says in its comment that it is
// in use, so that no sweep takes it.
func (s *server) use(ctx context.Context, name string) (bool, error) {
	var n int
	err := s.admin.QueryRowContext(ctx, "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n)
	if err != nil || n == 0 {
		return false, err
	}
	return true, s.exec(ctx, comment(name, usedComment+fmt.Sprint(time.Now().Unix())))
}

func comment(name, text string) string {
	return "COMMENT ON DATABASE " + quote(name) + " IS " + literal(text)
}

// dropTemplate drops one that is old, unless somebody has begun to use it.
func (s *server) dropTemplate(ctx context.Context, name string) error {
	return s.locked(ctx, name, func() error {
		all, err := s.list(ctx, name)
		if err != nil || len(all) == 0 || !all[0].unused(time.Now()) {
			return err
		}
		return s.drop(ctx, []string{name})
	})
}

// build makes the database name, and closes it to everybody: who copies one
// that somebody is connected to has to wait.
func (s *server) build(ctx context.Context, name string, build func(context.Context, *sql.DB) error) (err error) {
	if err := s.exec(ctx, "CREATE DATABASE "+quote(name)+" TEMPLATE template0"); err != nil {
		return err
	}
	db, err := s.open(name)
	if err != nil {
		return err
	}
	defer db.Close() // build may end the goroutine
	if err = build(ctx, db); err == nil {
		_, err = db.ExecContext(ctx, metaTable)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return s.exec(ctx, "ALTER DATABASE "+quote(name)+" ALLOW_CONNECTIONS false")
}

// metaTable is as tenancypg makes it.
const metaTable = "CREATE TABLE IF NOT EXISTS public." + tenancy.MetaTable + ` (
	uid text NOT NULL, generation bigint NOT NULL, catalog text NOT NULL,
	one boolean PRIMARY KEY DEFAULT true CHECK (one))`

func (s *server) open(name string) (*sql.DB, error) {
	c, err := s.engine.Connector(s.dsn(name))
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

func (s *server) dsn(name string) string {
	u := *s.url
	u.Path = "/" + name
	return u.String()
}
