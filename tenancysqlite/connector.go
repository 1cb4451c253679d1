package tenancysqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"

	_ "github.com/glebarez/go-sqlite" // registers "sqlite"
)

// registered returns the driver that is registered as "sqlite": the functions
// that an application gave it (go-sqlite's RegisterScalarFunction) are on that
// one value.
var registered = sync.OnceValue(func() driver.Driver {
	db, err := sql.Open("sqlite", "") // opens nothing
	if err != nil {
		panic(err) // the import above registers it
	}
	defer db.Close()
	return db.Driver()
})

// connector opens connections to one file. It is never changed after it was
// made.
type connector struct {
	file *file
	dsn  string // for the driver
}

func newConnector(f *file) *connector {
	return &connector{file: f, dsn: DSN(f.path()) + "?" + f.query.Encode()}
}

// Connect opens the file. The driver knows no ctx: one that is over is noticed
// before, and a connect waits for another's lock no longer than busy_timeout.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// mode=rw would refuse a missing file too, but in words that help nobody
	// ("unable to open database file: out of memory"), and a handle that
	// failed to open is leaked (go-sqlite's sqlite.go, openV2).
	if err := c.file.check(); err != nil {
		return nil, err
	}
	dc, err := registered().Open(c.dsn)
	if err != nil {
		return nil, &fileError{c.file.base(), "can't be opened", err}
	}
	if known, ok := dc.(driverConn); ok {
		return conn{known}, nil
	}
	return dc, nil
}

// Driver returns the driver that is registered as "sqlite".
func (*connector) Driver() driver.Driver { return registered() }
