package tenancypg

import (
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgxconn"
)

// Raw calls fn with the pgx connection under c, for what database/sql has no
// words for: CopyFrom, SendBatch, LISTEN. It works for connections of this
// package and for those of pgx's stdlib and gorm.io/driver/postgres, also in a
// wrapper that has a method Unwrap() driver.Conn; for any other it returns an
// error and fn is not called. fn's error is returned as it is.
//
// fn must not keep the connection, nor Hijack it, and should leave its session
// as it was: the next user of the pool gets it. Where that is hard, let fn
// Close it: the pool drops a connection that is closed, or left inside a
// transaction, and dials another when it needs one. After LISTEN that is the
// surest way, since UNLISTEN leaves the notifications that pgx has already
// received.
func Raw(c *sql.Conn, fn func(*pgx.Conn) error) error {
	return c.Raw(func(dc any) error {
		pc, ok := pgxconn.Of(dc)
		if !ok {
			return fmt.Errorf("tenancypg: the connection is a %T, which gives no access to pgx; open it with tenancypg.Engine or pgx's stdlib", dc)
		}
		return fn(pc)
	})
}
