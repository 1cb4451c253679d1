package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	dialect "github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

var _ catalog.Server = (*Server)(nil)

// ServerConfig is what [NewServer] wants to know.
type ServerConfig struct {
	// Dir is the directory that all databases lie in, on a local file system
	// that knows hard links, file locks and WAL. It is made with mode 0700 if
	// it is not there. Nothing but this package's Servers and the
	// application's SQLite may change files in it. Required.
	Dir string
	// Params is the query of the application's DSNs, as [Engine] describes it,
	// such as "_pragma=cache_size(-2000)&_pragma=synchronous(NORMAL)". Neither
	// journal_mode nor locking_mode can be set: Fence relies on WAL. Defaults
	// to "", Engine's defaults.
	Params string
}

// Server keeps a catalog's databases as files in one directory. It is a
// [catalog.Server]. Several Servers, in any number of processes of one
// machine, may have the same directory. A database's name is its file's name;
// one that is closed to the application has ".fenced-" in front, a template
// ".template-".
type Server struct {
	dir    string
	params url.Values
	root   *os.Root
}

// NewServer checks cfg, makes the directory and opens it. Close the Server
// when its sessions are closed.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("tenancysqlite: ServerConfig.Dir is not set")
	}
	params, err := url.ParseQuery(cfg.Params)
	if err != nil {
		return nil, errors.New("tenancysqlite: ServerConfig.Params is no query")
	}
	for _, name := range []string{"journal_mode", "locking_mode"} {
		if hasPragma(params["_pragma"], name) {
			return nil, fmt.Errorf("tenancysqlite: ServerConfig.Params sets %s, on which Fence relies; leave it out", name)
		}
	}
	if _, err := checkQuery(params); err != nil {
		return nil, fmt.Errorf("tenancysqlite: ServerConfig.Params: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("tenancysqlite: ServerConfig.Dir: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("tenancysqlite: ServerConfig.Dir can't be made: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("tenancysqlite: ServerConfig.Dir can't be opened: %w", err)
	}
	return &Server{dir: dir, params: params, root: root}, nil
}

// Close lets go of the directory. Databases that the application has open are
// not touched.
func (s *Server) Close() error { return s.root.Close() }

// Database implements [catalog.Server]. A connection to a database that is not
// there, or not open to the application, is refused by each Connect.
func (s *Server) Database(name string) (tenancy.Database, error) {
	if err := checkName(name); err != nil {
		return tenancy.Database{}, err
	}
	dsn := DSN(name)
	if len(s.params) > 0 {
		dsn += "?" + s.params.Encode()
	}
	connector, err := Engine{Dir: s.dir}.Connector(dsn)
	if err != nil {
		return tenancy.Database{}, err
	}
	return tenancy.Database{Connector: connector}, nil
}

// Session implements [catalog.Server]. The name is locked in all processes of
// this machine that have the directory. One that hangs can't be ended from
// here, so steal waits like everybody.
func (s *Server) Session(ctx context.Context, name string, steal bool) (catalog.Session, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	l, err := acquire(ctx, s.dir, name)
	switch {
	case err == nil:
		return &session{server: s, name: name, lock: l}, nil
	case ctx.Err() != nil && steal:
		return nil, &fileError{name, "is locked by a session that can't be ended from here; end the process that has it", err}
	case ctx.Err() != nil:
		return nil, &fileError{name, "is locked by another session", err}
	}
	return nil, &fileError{name, "can't be locked", explain(err)}
}

// Dialector implements [catalog.Server]: it is github.com/glebarez/sqlite's.
func (*Server) Dialector(db *sql.DB) gorm.Dialector { return &dialect.Dialector{Conn: db} }
