package tenancypg_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// listen calls heard with what is notified on the channel "orders" of ctx's
// tenant, until ctx ends or the connection breaks.
func listen(ctx context.Context, db *gorm.DB, heard func(payload string)) error {
	return tenancy.Conn(ctx, db, func(conn *sql.Conn) error {
		return tenancypg.Raw(conn, func(conn *pgx.Conn) error {
			// Whoever got this connection next would be listening too.
			defer conn.Close(ctx)
			if _, err := conn.Exec(ctx, "LISTEN orders"); err != nil {
				return err
			}
			for {
				n, err := conn.WaitForNotification(ctx)
				if err != nil {
					return err
				}
				heard(n.Payload)
			}
		})
	})
}

func ExampleRaw_listen() {
	var db *gorm.DB // opened on the main database, with the plugin in use

	ctx := tenant.Ctx(context.Background(), "acme")
	err := listen(ctx, db, func(payload string) { fmt.Println(payload) })
	fmt.Println(err)
}
