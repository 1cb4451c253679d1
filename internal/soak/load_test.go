package soak

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

const (
	kept = "kept"
	lost = "must never be seen"
)

var errRollback = errors.New("rolled back on purpose")

// in returns the db for one tenant.
func (a *app) in(ctx context.Context, c *customer) *gorm.DB {
	return a.db.WithContext(tenant.Ctx(ctx, c.id))
}

// work does one piece of work on the tenant's database with one connection, and
// checks whose it is.
func (a *app) work(ctx context.Context, c *customer) error {
	db := a.in(ctx, c)
	switch rand.IntN(7) {
	case 0:
		return a.read(ctx, c)
	case 1:
		err := db.Create(&Item{Tenant: c.id, Note: kept}).Error
		if err == nil {
			c.items.Add(1)
		}
		return err
	case 2:
		err := db.Transaction(func(tx *gorm.DB) error {
			var s Sign
			if err := tx.First(&s).Error; err != nil {
				return err
			}
			for range 2 {
				if err := tx.Create(&Item{Tenant: s.Tenant, Note: kept}).Error; err != nil {
					return err
				}
			}
			return c.is(s.Tenant)
		})
		if err == nil {
			c.items.Add(2)
		}
		return err
	case 3:
		err := db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Create(&Item{Tenant: c.id, Note: lost}).Error; err != nil {
				return err
			}
			return errRollback
		})
		if errors.Is(err, errRollback) {
			return nil
		}
		return fmt.Errorf("rolling back: %w", err)
	case 4:
		res := db.Model(&Sign{}).Where("tenant = ?", c.id).Update("visits", gorm.Expr("visits + 1"))
		if res.Error == nil {
			if res.RowsAffected != 1 {
				return fmt.Errorf("updated %d rows", res.RowsAffected)
			}
			c.visits.Add(1)
		}
		return res.Error
	case 5:
		var items []Item
		if err := db.Order("id DESC").Limit(10).Find(&items).Error; err != nil {
			return err
		}
		for _, i := range items {
			if err := c.is(i.Tenant); err != nil {
				return err
			}
		}
		return nil
	default:
		ctx := tenant.Ctx(ctx, c.id)
		return tenancy.Conn(ctx, a.db, func(conn *sql.Conn) error {
			for range 2 {
				var got string
				if err := conn.QueryRowContext(ctx, "SELECT tenant FROM signs").Scan(&got); err != nil {
					return err
				}
				if err := c.is(got); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func (c *customer) is(got string) error {
	if got != c.id {
		return fmt.Errorf("read a row of %q", got)
	}
	return nil
}

func (a *app) read(ctx context.Context, c *customer) error {
	var got struct{ Tenant, Database string }
	if err := a.in(ctx, c).Raw("SELECT tenant, current_database() AS database FROM signs").Scan(&got).Error; err != nil {
		return err
	}
	if got.Database != c.database {
		return fmt.Errorf("is in database %q", got.Database)
	}
	return c.is(got.Tenant)
}

// workOverRows holds Rows of one tenant open while another one is served: it
// needs two connections at once.
func (a *app) workOverRows(ctx context.Context, c, other *customer) error {
	rows, err := a.in(ctx, c).Raw("SELECT s.tenant FROM signs s, generate_series(1, 50)").Rows()
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	n := 0
	for rows.Next() {
		if n++; n == 25 {
			if err := a.work(ctx, other); err != nil {
				return fmt.Errorf("%s, with rows of %s open: %w", other.id, c.id, err)
			}
		}
		var got string
		if err := rows.Scan(&got); err != nil {
			return err
		}
		if err := c.is(got); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != 50 {
		return fmt.Errorf("%d rows", n)
	}
	return rows.Close()
}

// cancelled does work that is cancelled before it can end, at a random moment:
// while it waits for a connection, connects, or while the server is at it.
func (a *app) cancelled(ctx context.Context, c *customer) error {
	ctx, cancel := context.WithTimeout(ctx, 1+rand.N(40*time.Millisecond))
	defer cancel()
	db := a.in(ctx, c)
	var err error
	switch rand.IntN(3) {
	case 0:
		err = db.Exec("SELECT pg_sleep(4)").Error
	case 1:
		err = db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Create(&Item{Tenant: c.id, Note: lost}).Error; err != nil {
				return err
			}
			return tx.Exec("SELECT pg_sleep(4)").Error
		})
	default: // Rows whose next row does not come
		err = func() error {
			rows, err := db.Raw("SELECT tenant, pg_sleep(CASE WHEN n > 1 THEN 4 ELSE 0 END) FROM signs, generate_series(1, 3) n").Rows()
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				var got, void string
				if err := rows.Scan(&got, &void); err != nil {
					return err
				}
				if err := c.is(got); err != nil {
					return err
				}
			}
			return rows.Err()
		}()
	}
	switch {
	case err == nil:
		return errors.New("work that can't end ended")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, sql.ErrTxDone):
		return nil
	case errors.Is(err, driver.ErrBadConn) && ctx.Err() != nil:
		// What pgx says to a statement of a transaction whose ctx had ended
		// before anything was sent (stdlib/sql.go, ExecContext).
		return nil
	}
	return fmt.Errorf("cancelled: %w", err)
}
