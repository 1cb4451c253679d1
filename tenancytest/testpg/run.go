package testpg

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// prefix begins the names of all databases: tenancytest_RUN_NUMBER, and
// tenancytest_tpl_HASH, of a template's key and the role that it belongs to.
const prefix = "tenancytest_"

// adminConns is how many databases are made or dropped at once. One more
// connection holds the run's lock.
const adminConns = 4

// server is one run on a server. A session holds the run's lock for as long as
// the process lives.
type server struct {
	engine tenancypg.Engine
	pkg    string
	stop   func() // of a server that is this process's own; nil for another's

	url   *url.URL // of the maintenance database
	id    string
	admin *sql.DB
	lock  *sql.Conn
	role  string       // that databases belong to
	last  atomic.Int64 // number of the last database

	mu    sync.Mutex
	waste []string // discarded databases, in that order
}

// packageKey stands for the package whose tests run: go test runs them in the
// package's directory.
func packageKey() string {
	wd, _ := os.Getwd() // without one, all such packages are the same
	sum := sha256.Sum256([]byte(wd + "\x00" + filepath.Base(os.Args[0])))
	return hex.EncodeToString(sum[:6])
}

// begin connects, and takes the run's lock before anything has the run's name.
func (s *server) begin(ctx context.Context, dsn string) (err error) {
	if s.url, err = parse(dsn); err != nil {
		return err
	}
	s.id = strings.ToLower(rand.Text()[:12])
	u := *s.url
	q := u.Query()
	q.Set("application_name", prefix+s.id)
	q.Set("statement_timeout", "0") // a DROP that is cut short leaves a database that can't be used
	q.Set("lock_timeout", "0")      // who builds a template may take long
	u.RawQuery = q.Encode()
	connector, err := tenancypg.Engine{Configure: func(cfg *pgx.ConnConfig) error {
		cfg.AfterConnect = stayIdle
		return nil
	}}.Connector(u.String())
	if err != nil {
		return err
	}
	s.admin = sql.OpenDB(connector)
	s.admin.SetMaxOpenConns(adminConns + 1)
	s.admin.SetMaxIdleConns(adminConns + 1)
	if s.lock, err = s.admin.Conn(ctx); err != nil {
		return err
	}
	return s.lock.QueryRowContext(ctx, "SELECT current_user FROM pg_advisory_lock($1)", runKey(s.id)).Scan(&s.role)
}

// stayIdle keeps the server from ending a session that is idle, and with it the
// run's lock: other runs would drop what this one has. Version 13 has no such
// setting.
func stayIdle(ctx context.Context, conn *pgconn.PgConn) error {
	return conn.Exec(ctx, "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'").Close()
}

// key is that of an advisory lock.
func key(what string) int64 {
	sum := sha256.Sum256([]byte(prefix + what))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

func runKey(id string) int64 { return key("run " + id) }

// next returns a name for a new database of this run.
func (s *server) next() string { return fmt.Sprintf("%s%s_%d", prefix, s.id, s.last.Add(1)) }

func (s *server) exec(ctx context.Context, query string) error {
	_, err := s.admin.ExecContext(ctx, query)
	return err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a string; standard_conforming_strings is on.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// Engine implements [tenancytest.Server].
func (s *server) Engine() tenancy.Engine { return s.engine }

// Dialector implements [tenancytest.Server].
func (s *server) Dialector(pool gorm.ConnPool) gorm.Dialector {
	return postgres.New(postgres.Config{Conn: pool, PreferSimpleProtocol: s.engine.PreferSimpleProtocol})
}

// Close implements [tenancytest.Server].
func (s *server) Close(ctx context.Context) error {
	var errs []error
	if s.stop == nil && s.lock != nil {
		errs = append(errs, s.dropAll(ctx))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	if s.stop != nil {
		s.stop()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("testpg: %w", err)
	}
	return nil
}
