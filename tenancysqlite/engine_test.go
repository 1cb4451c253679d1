package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/glebarez/sqlite"
	"go.uber.org/goleak"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// created returns an engine and the DSN of a new database in it.
func created(t testing.TB) (Engine, string) {
	t.Helper()
	e := Engine{Dir: t.TempDir()}
	if err := e.Create(context.Background(), "a.db"); err != nil {
		t.Fatal(err)
	}
	return e, "a.db"
}

func TestSettings(t *testing.T) {
	e, dsn := created(t)
	type settings struct {
		foreignKeys, busyTimeout int
		journal                  string
	}
	for query, want := range map[string]settings{
		"":                                  {1, 5000, "wal"},
		"?_time_format=sqlite":              {1, 5000, "wal"},
		"?_pragma=foreign_keys(0)":          {0, 5000, "wal"},
		"?_pragma=FOREIGN_KEYS=off":         {0, 5000, "wal"},
		"?_pragma=busy_timeout(70)":         {1, 70, "wal"},
		"?_pragma=main.journal_mode=DELETE": {1, 5000, "delete"},
		"?mode=rw&_pragma=cache_size(10)":   {1, 5000, "wal"},
		"?mode=ro":                          {1, 5000, "wal"},
	} {
		db := open(t, e, dsn+query)
		var got settings
		for pragma, dest := range map[string]any{
			"foreign_keys": &got.foreignKeys, "busy_timeout": &got.busyTimeout, "journal_mode": &got.journal,
		} {
			if err := db.QueryRow("PRAGMA " + pragma).Scan(dest); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		}
		if got != want {
			t.Errorf("%q: %+v, want %+v", query, got, want)
		}
		_ = db.Close()
	}
	if _, err := open(t, e, dsn+"?mode=ro").Exec("CREATE TABLE t (id integer)"); err == nil {
		t.Error("mode=ro can write")
	}
}

func TestForeignKeysHold(t *testing.T) {
	e, dsn := created(t)
	db := open(t, e, dsn)
	if _, err := db.Exec("CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (a_id integer REFERENCES a)"); err != nil {
		t.Fatal(err)
	}
	_, err := db.Exec("INSERT INTO b VALUES (7)")
	if err == nil {
		t.Error("a row without its parent was taken")
	}
	if f := e.Classify(err); f != tenancy.FaultNone {
		t.Errorf("%v is %v", err, f)
	}
}

// Transactions that read and then write must neither fail nor lose an update.
func TestReadThenWrite(t *testing.T) {
	const workers, rounds = 4, 25
	// _time_format must not switch the immediate lock off, as it does in the
	// driver.
	for _, query := range []string{"", "?_time_format=sqlite"} {
		e, dsn := created(t)
		db := open(t, e, dsn+query)
		db.SetMaxOpenConns(workers)
		if _, err := db.Exec("CREATE TABLE counter (n integer); INSERT INTO counter VALUES (0)"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range rounds {
					if err := increment(db.Begin()); err != nil {
						t.Errorf("%q: %v", query, err)
						return
					}
				}
			})
		}
		wg.Wait()
		var n int
		if err := db.QueryRow("SELECT n FROM counter").Scan(&n); err != nil || n != workers*rounds {
			t.Errorf("%q: counted to %d, want %d (%v)", query, n, workers*rounds, err)
		}
		_ = db.Close()
	}
}

// The application's own _txlock holds: deferred transactions do collide.
func TestDeferredWhenAsked(t *testing.T) {
	e, dsn := created(t)
	db := open(t, e, dsn+"?_txlock=deferred&_pragma=busy_timeout(0)")
	if _, err := db.Exec("CREATE TABLE counter (n integer); INSERT INTO counter VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRow("SELECT n FROM counter").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := increment(db.Begin()); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec("UPDATE counter SET n = ?", n+1)
	if err == nil {
		t.Fatal("a deferred transaction wrote over what it had not read")
	}
	if f := e.Classify(err); f != tenancy.FaultNone {
		t.Errorf("%v is %v", err, f)
	}
}

// increment takes what Begin returns.
func increment(tx *sql.Tx, err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRow("SELECT n FROM counter").Scan(&n); err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE counter SET n = ?", n+1); err != nil {
		return err
	}
	return tx.Commit()
}

// What GORM's dialect does on our connections.
func TestGORM(t *testing.T) {
	e, dsn := created(t)
	type note struct {
		ID   uint
		Text string
	}
	db, err := gorm.Open(&sqlite.Dialector{Conn: open(t, e, dsn)}, &gorm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if db.Name() != e.Dialect() {
		t.Errorf("Dialect is %q, gorm's %q", e.Dialect(), db.Name())
	}
	if err := db.AutoMigrate(&note{}); err != nil {
		t.Fatal(err)
	}
	if err := db.Create(&note{Text: "hello"}).Error; err != nil {
		t.Fatal(err)
	}
	var got note
	if err := db.First(&got).Error; err != nil || got.Text != "hello" {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestServer(t *testing.T) {
	for dir, want := range map[string]string{"": "sqlite", "/data/": "sqlite:/data", "tenants": "sqlite:tenants"} {
		if got := (Engine{Dir: dir}).Server("a.db"); got != filepath.FromSlash(want) {
			t.Errorf("%q: %q, want %q", dir, got, want)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want tenancy.Fault
	}{
		{nil, tenancy.FaultNone},
		{errors.New("anything"), tenancy.FaultNone},
		{fs.ErrNotExist, tenancy.FaultNone}, // not of a database
		{&fileError{"a.db", "is missing", fs.ErrNotExist}, tenancy.FaultTenant},
		{&fileError{"a.db", "can't be opened", fs.ErrPermission}, tenancy.FaultTenant},
		{fmt.Errorf("x: %w", &fileError{"a.db", "can't be opened", syscall.EMFILE}), tenancy.FaultSaturation},
		{&fileError{"a.db", "can't be created", syscall.ENOSPC}, tenancy.FaultServer},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), tenancy.FaultCaller},
	} {
		if got := (Engine{}).Classify(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
	for code, want := range map[int]tenancy.Fault{
		1: tenancy.FaultNone, 5: tenancy.FaultNone, 6: tenancy.FaultNone, 19: tenancy.FaultNone,
		517: tenancy.FaultNone, // BUSY_SNAPSHOT
		9:   tenancy.FaultCaller,
		11:  tenancy.FaultTenant, 14: tenancy.FaultTenant, 26: tenancy.FaultTenant,
		1032: tenancy.FaultTenant, // READONLY_DBMOVED
		8:    tenancy.FaultNone,   // READONLY
		7:    tenancy.FaultServer, 10: tenancy.FaultServer, 13: tenancy.FaultServer,
		266: tenancy.FaultServer, // IOERR_READ
	} {
		if got := classifyCode(code); got != want {
			t.Errorf("code %d: %v, want %v", code, got, want)
		}
	}
}

func TestInterruptedQueryIsTheCallers(t *testing.T) {
	e, dsn := created(t)
	ctx, cancel := context.WithCancel(context.Background())
	db := open(t, e, dsn)
	rows, err := db.QueryContext(ctx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	rows.Next()
	cancel()
	for rows.Next() {
	}
	if f := e.Classify(rows.Err()); f != tenancy.FaultCaller {
		t.Errorf("%v is %v", rows.Err(), f)
	}
}
