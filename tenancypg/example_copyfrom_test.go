package tenancypg_test

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// copyOrders writes orders into the database of ctx's tenant with COPY.
func copyOrders(ctx context.Context, db *gorm.DB, titles []string) (n int64, err error) {
	rows := pgx.CopyFromSlice(len(titles), func(i int) ([]any, error) {
		return []any{titles[i]}, nil
	})
	err = tenancy.Conn(ctx, db, func(conn *sql.Conn) error {
		return tenancypg.Raw(conn, func(conn *pgx.Conn) error {
			n, err = conn.CopyFrom(ctx, pgx.Identifier{"orders"}, []string{"title"}, rows)
			return err
		})
	})
	return n, err
}

func ExampleRaw_copyFrom() {
	var db *gorm.DB // opened on the main database, with the plugin in use

	ctx := tenant.Ctx(context.Background(), "acme")
	if _, err := copyOrders(ctx, db, []string{"bread", "milk"}); err != nil {
		panic(err)
	}
}
