package enginetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// defaultPatience does for a loaded machine under the race detector.
const defaultPatience = 20 * time.Second

// suite is one check's.
type suite struct {
	testing.TB
	Config
}

func newSuite(tb testing.TB, cfg Config) *suite {
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	return &suite{tb, cfg}
}

// Item is the row that all databases have under the same key, so that a
// statement that went astray finds one.
type Item struct {
	ID    int64  `gorm:"primaryKey;autoIncrement:false"`
	Owner string `gorm:"size:64"`
}

// TableName implements GORM's Tabler.
func (Item) TableName() string { return "enginetest_items" }

const items = "enginetest_items"

// database makes a database with one Item of its own name.
func (s *suite) database() (name string) {
	s.Helper()
	name = s.Create(s.TB)
	db := s.gorm(s.raw(name))
	s.must(db.AutoMigrate(&Item{}))
	s.must(db.Create(&Item{ID: 1, Owner: name}).Error)
	return name
}

// raw opens a database around the engine.
func (s *suite) raw(name string) *sql.DB {
	s.Helper()
	db := s.Open(s.TB, name)
	s.Cleanup(func() { _ = db.Close() })
	return db
}

// owners are those of all of a database's rows, read around the engine.
func (s *suite) owners(name string) (owners []string) {
	s.Helper()
	ctx, cancel := s.bounded()
	defer cancel()
	rows, err := s.raw(name).QueryContext(ctx, "SELECT owner FROM "+items+" ORDER BY id")
	s.must(err)
	defer rows.Close() //nolint:errcheck // rows.Err counts
	for rows.Next() {
		var owner string
		s.must(rows.Scan(&owner))
		owners = append(owners, owner)
	}
	s.must(rows.Err())
	return owners
}

func (s *suite) gorm(db *sql.DB) *gorm.DB {
	s.Helper()
	g, err := gorm.Open(s.Dialector(db), &gorm.Config{Logger: logger.Discard})
	s.must(err)
	return g
}

// tenants is GORM with the plugin and a tenant for each database, of the same
// name.
func (s *suite) tenants(databases map[string]tenancy.Database) *gorm.DB {
	s.Helper()
	db := s.gorm(s.raw(s.Create(s.TB)))
	plugin := tenancy.New(tenancy.Config{Resolver: tenancy.Static(databases), Engine: s.Engine})
	s.must(db.Use(plugin))
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
		defer cancel()
		if err := plugin.Close(ctx); err != nil {
			s.Errorf("the plugin's Close: %v: are connections left that never end?", err)
		}
	})
	return db
}

// in is db for one tenant, for as long as the suite's patience.
func (s *suite) in(db *gorm.DB, id string) *gorm.DB {
	ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), id), s.Patience)
	s.Cleanup(cancel)
	return db.WithContext(ctx)
}

// place is where a database really is.
func (s *suite) place(name string) Place {
	return Place{Addr: s.Address, Database: name, Password: s.Password}
}

// nowhere is a database that can't be opened, at addr.
func (s *suite) nowhere(addr string) Place {
	p := Place{Addr: addr, Database: "enginetest_nowhere"}
	if s.Password != "" {
		p.Password = Secret
	}
	return p
}

// connector is the engine's for a place.
func (s *suite) connector(p Place) driver.Connector {
	s.Helper()
	c, err := s.Engine.Connector(s.DSN(p))
	if err != nil || c == nil {
		s.Fatalf("Connector of a good DSN: %v, %v; it must do no I/O", c, err)
	}
	return c
}

// pool is a sql.DB of the engine's.
func (s *suite) pool(c driver.Connector) *sql.DB {
	db := sql.OpenDB(c)
	s.Cleanup(func() { _ = db.Close() })
	return db
}

// connect connects, and fails if that does not end.
func (s *suite) connect(ctx context.Context, c driver.Connector) (conn driver.Conn, err error) {
	s.Helper()
	s.ends("Connect", func() { conn, err = c.Connect(ctx) })
	if err == nil && conn == nil {
		s.Fatalf("Connect returned neither a connection nor an error")
	}
	return conn, err
}

// refuses is the error of a connect that must fail.
func (s *suite) refuses(what string, c driver.Connector) error {
	s.Helper()
	ctx, cancel := s.bounded()
	defer cancel()
	conn, err := s.connect(ctx, c)
	if err == nil {
		// database/sql opens some databases at the first statement only.
		_ = conn.Close()
		db := s.pool(c)
		s.ends("a statement", func() { _, err = db.ExecContext(ctx, "SELECT 1") })
	}
	if err == nil {
		s.Fatalf("%s: a connection came about", what)
	}
	s.noSecret(what, err)
	return err
}

func (s *suite) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.Patience)
}

// ends runs f, which has to return.
func (s *suite) ends(what string, f func()) {
	s.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	s.happens(what+" returns", done)
}

// happens waits for an event.
func (s *suite) happens(what string, event <-chan struct{}) {
	s.Helper()
	limit := time.NewTimer(s.Patience)
	defer limit.Stop()
	select {
	case <-event:
	case <-limit.C:
		s.Fatalf("waited %v in vain until %s", s.Patience, what)
	}
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%v", err)
	}
}

// is fails unless the engine gives err, however wrapped, one of these faults.
func (s *suite) is(what string, err error, want ...tenancy.Fault) {
	s.Helper()
	for how, e := range map[string]error{
		"": err, ", wrapped by fmt.Errorf": fmt.Errorf("x: %w", err),
		", as the Cause of a tenancy.Error": &tenancy.Error{Op: "x", Err: errors.New("y"), Cause: err},
	} {
		got := s.Engine.Classify(e)
		if !slices.Contains(want, got) {
			s.Errorf("%s%s: Classify says %s, want %s: %v", what, how, got, names(want), err)
		}
	}
}

func names(faults []tenancy.Fault) string {
	all := make([]string, len(faults))
	for i, f := range faults {
		all[i] = f.String()
	}
	return strings.Join(all, " or ")
}

// noSecret fails if err, or anything that it wraps, shows the secret.
func (s *suite) noSecret(what string, err error) {
	s.Helper()
	if shows(err, Secret) {
		s.Errorf("%s: the error shows the DSN's password: a %T", what, err)
	}
}

// shows reports whether a text is in err, or in anything that it wraps.
func shows(err error, text string) bool {
	if err == nil {
		return false
	}
	if strings.Contains(fmt.Sprintf("%v|%+v|%#v", err, err, err), text) {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return shows(e.Unwrap(), text)
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), func(err error) bool { return shows(err, text) })
	}
	return false
}
