package tenancypg

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gorm-tenancy/tenancy"
)

var (
	_ tenancy.PermitConnector = (*connector)(nil)
	_ tenancy.ServerConnector = (*connector)(nil)
)

// connector opens connections to one database. It is never changed after it
// was made.
type connector struct {
	cfg    *pgx.ConnConfig  // parsed once
	before beforeConnect    // may be nil
	std    driver.Connector // pgx's, on both
	loc    *time.Location   // of "timestamp" values; nil leaves pgx's UTC
	server string
	name   string // for String
}

func newConnector(cfg *pgx.ConnConfig, loc *time.Location, before beforeConnect) *connector {
	// Our conn pings by itself, within bounds.
	opts := []stdlib.OptionOpenDB{stdlib.OptionShouldPing(
		func(context.Context, stdlib.ShouldPingParams) bool { return false })}
	if before != nil {
		opts = append(opts, stdlib.OptionBeforeConnect(before.login(cfg)))
	}
	return &connector{
		cfg:    cfg,
		before: before,
		std:    stdlib.GetConnector(*cfg, opts...),
		loc:    loc,
		server: servers(cfg),
		name:   fmt.Sprintf("tenancypg: %s/%s", servers(cfg), cfg.Database),
	}
}

// Connect dials one connection that is accounted for by nobody.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	return c.ConnectPermit(ctx, nil)
}

// ConnectPermit dials one connection. permit is released when the connection's
// socket is closed for good; see [conn.Close].
func (c *connector) ConnectPermit(ctx context.Context, permit tenancy.Permit) (driver.Conn, error) {
	dc, err := c.std.Connect(ctx)
	if err != nil {
		return nil, err
	}
	std, ok := dc.(*stdlib.Conn)
	if !ok {
		_ = dc.Close()
		return nil, fmt.Errorf("tenancypg: pgx connected with a %T", dc)
	}
	if c.loc != nil {
		// Not with stdlib.OptionAfterConnect, as gorm.io/driver/postgres
		// does: when such a function fails, pgx leaves the connection open
		// with nobody to close it (stdlib/sql.go, connector.Connect). Here
		// nothing is left that could fail.
		std.Conn().TypeMap().RegisterType(&pgtype.Type{
			Name:  "timestamp",
			OID:   pgtype.TimestampOID,
			Codec: &pgtype.TimestampCodec{ScanLocation: c.loc},
		})
	}
	return &conn{stdConn: std, from: c, permit: permit, lastUsed: time.Now()}, nil
}

// Driver returns pgx's driver.
func (c *connector) Driver() driver.Driver { return c.std.Driver() }

// Server returns what [Engine.Server] says of such a DSN.
func (c *connector) Server() string { return c.server }

// String names the database. Without it, fmt would print pgx's configuration,
// and the password in it.
func (c *connector) String() string { return c.name }

// GoString is String for %#v.
func (c *connector) GoString() string { return c.name }
