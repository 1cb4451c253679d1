package tenancypg

import (
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Raw calls fn with the pgx connection under c, for what database/sql has no
// words for: CopyFrom, SendBatch, LISTEN. It works for connections of this
// package and for those of pgx's stdlib and gorm.io/driver/postgres; for any
// other it returns an error and fn is not called. fn's error is returned as it
// is.
//
// fn must not keep the connection, nor Close or Hijack it, and should leave
// its session as it was: the next user of the pool gets it. A connection that
// is left inside a transaction is closed. Work that ends with the session,
// such as LISTEN, is best done until c itself is closed.
func Raw(c *sql.Conn, fn func(*pgx.Conn) error) error {
	return c.Raw(func(dc any) error {
		pc, ok := dc.(interface{ Conn() *pgx.Conn })
		if !ok {
			return fmt.Errorf("tenancypg: the connection is a %T, which gives no access to pgx; open it with tenancypg.Engine or pgx's stdlib", dc)
		}
		return fn(pc.Conn())
	})
}
