package tenancypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

var (
	_ catalog.Server   = (*Server)(nil)
	_ catalog.Listener = (*Server)(nil)
)

const (
	defaultAdminConns = 4
	// adminName and sessionName are the application_name of the connections
	// to the maintenance database and, with the session's own token behind
	// it, of those to a session's database.
	adminName   = "tenancy admin"
	sessionName = "tenancy session "
	// migrationName is that of the connections of a database that is open for
	// migrations.
	migrationName = "tenancy migration "
	// cancelPatience is how long the server may take to end a statement that
	// was cancelled, before its connection is given up.
	cancelPatience = 10 * time.Second
	// maintenanceIdle is how long an unused maintenance connection is kept.
	maintenanceIdle = time.Minute
)

// ServerConfig says how a PostgreSQL server, version 13 or later, is reached
// and administered.
//
// Two roles are best: one for the application, and one for administration that
// has LOGIN, CREATEDB and membership in pg_signal_backend, and need not be a
// superuser. Databases and what is in them belong to the administrator.
type ServerConfig struct {
	// App is the DSN by which the application reaches the server. Its
	// database's name, if any, is replaced by the tenant's. It may lead
	// through a PgBouncer. Required.
	App string
	// Replicas are the DSNs by which the application reaches the standbys of the
	// server, for reads: each tenant's [tenancy.Database.Replicas]. Their
	// database's name, if any, is replaced by the tenant's. Administration knows
	// nothing of them. What keeps the application out of a database (Suspend,
	// Move, Remove) ends its connections to the server itself; those to a standby
	// end when the news has retired the pool, and until then may read what the
	// standby has. Defaults to none.
	Replicas []string
	// AppRole is the role that gets the application's grants. Set it where
	// BeforeConnect changes the user: to the role that all of these inherit
	// from. Defaults to App's user.
	AppRole string
	// Admin is the administrator's DSN. Its database is the maintenance
	// database: CREATE DATABASE is run from there, and the locks by which
	// sessions exclude each other are held there, so that all processes must
	// name the same one. It must lead to the server itself: through a
	// PgBouncer, such locks hold nothing. Leave it empty in processes that only
	// serve tenants: they need not know the administrator's password.
	Admin string
	// Engine opens the application's connections.
	Engine Engine
	// AdminEngine opens the administrator's.
	AdminEngine Engine
	// Settings are set for each database by Session.Open, with ALTER DATABASE
	// ... SET: statement_timeout, timezone, search_path. Those that are no
	// longer listed stay as they are. The administrator's own connections
	// have no statement_timeout and are not read-only, whatever is set here.
	Settings map[string]string
	// Prepare is called at each Session.Open, as the administrator in the
	// tenant's database, after the application's grants and before the
	// application may connect: for the grants of other roles, for instance.
	// It may run again on a database that it has seen. Defaults to nil.
	Prepare func(ctx context.Context, db *sql.DB) error
	// AdminConns bounds the connections of this process to the maintenance
	// database. Each open Session has one, so that this is also the number
	// of databases that can be created or dropped at once; don't wait for a
	// session while holding one. Defaults to 4.
	AdminConns int
	// BinDir is the directory of pg_dump and pg_restore. Defaults to where
	// Debian's packages put those of the server's own version, then PATH, then
	// the newest packaged.
	BinDir string
}

// Server is a PostgreSQL server on which a catalog makes tenants' databases.
// It may be used by many goroutines at once.
type Server struct {
	cfg     ServerConfig
	app     *pgx.ConnConfig   // never changed; its Database means nothing
	copies  []*pgx.ConnConfig // of the standbys, likewise
	adm     *pgx.ConnConfig   // likewise; its Database is the maintenance database
	appRole string
	admin   *sql.DB // the maintenance database
}

// NewServer checks cfg, and does no I/O. Its errors hold nothing of a DSN.
// Close the server when it is no longer needed.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg.Settings = maps.Clone(cfg.Settings)
	switch {
	case cfg.App == "":
		return nil, errors.New("tenancypg: ServerConfig.App is empty")
	case cfg.AdminConns < 0:
		return nil, fmt.Errorf("tenancypg: ServerConfig.AdminConns is negative: %d", cfg.AdminConns)
	case cfg.AdminConns == 0:
		cfg.AdminConns = defaultAdminConns
	case cfg.AdminConns == 1:
		return nil, errors.New("tenancypg: ServerConfig.AdminConns is 1: whoever makes a template needs a second one")
	}
	for name, value := range cfg.Settings {
		if name == "" || strings.IndexByte(name, 0) >= 0 || strings.IndexByte(value, 0) >= 0 {
			return nil, fmt.Errorf("tenancypg: ServerConfig.Settings: %q can't be set", name)
		}
	}
	s := &Server{cfg: cfg, appRole: cfg.AppRole}
	var err error
	if s.app, err = parseConfig(cfg.App); err != nil {
		return nil, fmt.Errorf("ServerConfig.App: %w", err)
	}
	if s.appRole == "" {
		s.appRole = s.app.User
	}
	if s.appRole == "" || len(s.appRole) > maxName || strings.IndexByte(s.appRole, 0) >= 0 {
		return nil, errors.New("tenancypg: ServerConfig.App: the user's name is empty or too long")
	}
	// Any bad time zone, Configure or engine shows here already.
	if _, err := connectorAt(cfg.Engine, s.app, "tenant"); err != nil {
		return nil, fmt.Errorf("ServerConfig.App: %w", err)
	}
	for i, dsn := range cfg.Replicas {
		c, err := parseConfig(dsn)
		if err == nil {
			_, err = replicaAt(cfg.Engine, c, "tenant")
		}
		if err != nil {
			return nil, fmt.Errorf("ServerConfig.Replicas[%d]: %w", i, err)
		}
		s.copies = append(s.copies, c)
	}
	if cfg.Admin == "" {
		return s, nil
	}
	if s.adm, err = parseConfig(cfg.Admin); err != nil {
		return nil, fmt.Errorf("ServerConfig.Admin: %w", err)
	}
	if err := checkSource(s.adm, cfg.Admin); err != nil {
		return nil, fmt.Errorf("ServerConfig.Admin: %w", err)
	}
	// A template database as the maintenance database is one that sessions are
	// connected to.
	if n := s.adm.Database; n == "template0" || n == "template1" {
		return nil, fmt.Errorf("tenancypg: ServerConfig.Admin: %s can't be the maintenance database: while anybody is connected to it, nothing is copied from it; use postgres", n)
	}
	maintenance, err := connectorAt(cfg.AdminEngine, s.maintenanceConfig(), s.adm.Database)
	if err != nil {
		return nil, fmt.Errorf("ServerConfig.Admin: %w", err)
	}
	s.admin = sql.OpenDB(maintenance)
	s.admin.SetMaxOpenConns(cfg.AdminConns)
	s.admin.SetMaxIdleConns(cfg.AdminConns)
	s.admin.SetConnMaxIdleTime(maintenanceIdle)
	return s, nil
}

// Close closes the administrator's connections. Close sessions first.
func (s *Server) Close() error {
	if s.admin == nil {
		return nil
	}
	return s.admin.Close()
}

// errNoAdmin is what a server says that was given no administrator.
var errNoAdmin = fmt.Errorf("tenancypg: ServerConfig.Admin is empty: %w; do it in one that has the administrator's DSN", catalog.ErrNoAdmin)

// String names the server. Without it, fmt would print the DSNs.
func (s *Server) String() string { return "tenancypg: " + servers(s.app) }

// GoString is String for %#v.
func (s *Server) GoString() string { return s.String() }

// maintenanceConfig is that of connections on which nothing may be cut short:
// a DROP DATABASE that a statement_timeout interrupts leaves a database that
// can't be used.
func (s *Server) maintenanceConfig() *pgx.ConnConfig {
	cfg := s.adm.Copy()
	cfg.RuntimeParams["application_name"] = adminName
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["lock_timeout"] = "0"
	durable(cfg)
	cancels(cfg)
	return cfg
}

// cancels makes a statement end with its ctx, and its connection stay. Without
// this, pgx closes the connection (pgconn.go, asyncClose), and the session and
// its locks are gone with it.
func cancels(cfg *pgx.ConnConfig) {
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelPatience}
	}
}

// connectorAt is Engine.ConnectorConfig for the database name on base's
// server. The name is the catalog's: what the environment says of PGDATABASE
// does not matter.
func connectorAt(e Engine, base *pgx.ConnConfig, name string) (*connector, error) {
	cfg, loc, err := configAt(e, base, name)
	if err != nil {
		return nil, err
	}
	return newConnector(cfg, loc, e.BeforeConnect), nil
}

// replicaAt is connectorAt for a standby.
func replicaAt(e Engine, base *pgx.ConnConfig, name string) (*replicaConnector, error) {
	cfg, loc, err := configAt(e, base, name)
	if err != nil {
		return nil, err
	}
	return newReplicaConnector(cfg, loc, e.BeforeConnect), nil
}

func configAt(e Engine, base *pgx.ConnConfig, name string) (*pgx.ConnConfig, *time.Location, error) {
	cfg := base.Copy()
	cfg.Database = name
	loc, err := e.apply(cfg, cfg.ConnString())
	if err != nil {
		return nil, nil, err
	}
	if cfg.Database != name {
		return nil, nil, errors.New("tenancypg: Configure changed the Database")
	}
	return cfg, loc, nil
}

// checkDatabase refuses names that can't be a tenant's.
func (s *Server) checkDatabase(name string) error {
	switch {
	case name == "":
		return errors.New("tenancypg: the database's name is empty")
	case len(name) > maxName:
		return fmt.Errorf("tenancypg: the database's name has %d bytes: over %d the server would take the shortened name's", len(name), maxName)
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("tenancypg: the database's name holds a NUL byte")
	case name == "template0", name == "template1", s.adm != nil && name == s.adm.Database:
		return fmt.Errorf("tenancypg: %q is the server's own or the maintenance database", name)
	}
	return nil
}

// Database implements [catalog.Server]. It is an error for a name that can't
// be a tenant's: empty, of more than 63 bytes or with a NUL, the maintenance
// database, template0 or template1. So it is of Session.
func (s *Server) Database(name string) (tenancy.Database, error) {
	if err := s.checkDatabase(name); err != nil {
		return tenancy.Database{}, err
	}
	c, err := connectorAt(s.cfg.Engine, s.app, name)
	if err != nil {
		return tenancy.Database{}, err
	}
	d := tenancy.Database{Connector: c}
	for _, base := range s.copies {
		r, err := replicaAt(s.cfg.Engine, base, name)
		if err != nil {
			return tenancy.Database{}, err
		}
		d.Replicas = append(d.Replicas, tenancy.Database{Connector: r})
	}
	return d, nil
}

// Databases implements [catalog.Server]: all databases but template0,
// template1 and the maintenance database. Whose they are is read from their
// comments.
func (s *Server) Databases(ctx context.Context) ([]catalog.Found, error) {
	if s.admin == nil {
		return nil, errNoAdmin
	}
	// format's %s makes text of the type name.
	rows, err := s.admin.QueryContext(ctx, `
		SELECT format('%s', datname), coalesce(shobj_description(oid, 'pg_database'), ''),
			datistemplate AND NOT datallowconn, datconnlimit
		FROM pg_catalog.pg_database
		WHERE datname NOT IN ('template0', 'template1') AND datname <> current_database()
		ORDER BY datname`)
	if err != nil {
		return nil, explain("listing the databases", err)
	}
	defer rows.Close()
	var all []catalog.Found
	for rows.Next() {
		var f catalog.Found
		var comment string
		var limit int
		if err := rows.Scan(&f.Name, &comment, &f.Template, &limit); err != nil {
			return nil, explain("listing the databases", err)
		}
		m := parseComment(comment)
		f.Catalog, f.UID = m.Catalog, m.UID
		if limit == invalidLimit {
			f.Broken = "a DROP DATABASE was interrupted; it can only be dropped"
		}
		all = append(all, f)
	}
	if err := rows.Err(); err != nil {
		return nil, explain("listing the databases", err)
	}
	return all, nil
}

// Dialector implements [catalog.Server].
func (s *Server) Dialector(db *sql.DB) gorm.Dialector {
	return postgres.New(postgres.Config{Conn: db, PreferSimpleProtocol: s.cfg.AdminEngine.PreferSimpleProtocol})
}

// Classify says whose fault an error of a session is; see [Engine.Classify].
// It implements [catalog.Classifier].
func (s *Server) Classify(err error) tenancy.Fault {
	return s.cfg.AdminEngine.Classify(err)
}

// durable makes that what was answered outlives a crash of the server, also
// where synchronous_commit is off for the application's sake: the catalog says
// that it was done.
func durable(cfg *pgx.ConnConfig) {
	if _, ok := cfg.RuntimeParams["synchronous_commit"]; !ok {
		cfg.RuntimeParams["synchronous_commit"] = "on"
	}
}
