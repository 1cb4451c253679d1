// Package pgxconn finds pgx's connection under a driver's.
package pgxconn

import (
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
)

// Of returns the pgx connection of dc, or of what dc wraps.
func Of(dc any) (*pgx.Conn, bool) {
	for {
		if pc, ok := dc.(interface{ Conn() *pgx.Conn }); ok {
			return pc.Conn(), true
		}
		w, ok := dc.(interface{ Unwrap() driver.Conn })
		if !ok {
			return nil, false
		}
		dc = w.Unwrap()
	}
}
