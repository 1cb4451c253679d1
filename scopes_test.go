package tenancy_test

import (
	"context"
	"database/sql"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestWithTenantOverridesButNotAPin(t *testing.T) {
	e := openSQLite(t)
	var o Order
	require.NoError(t, e.in(idA).Scopes(tenancy.WithTenant(idB)).First(&o).Error)
	require.Equal(t, "order 1 of bravo", o.Title)

	pinned := e.db.WithContext(tenant.Pin(context.Background(), idA))
	require.NoError(t, pinned.Scopes(tenancy.WithTenant(idA)).First(&Order{}).Error)
	err := pinned.Scopes(tenancy.WithTenant(idB)).First(&Order{}).Error
	require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
	require.ErrorContains(t, err, idA)
	require.ErrorContains(t, err, idB)
	require.NoError(t, pinned.Scopes(tenancy.Main).First(&Plan{}).Error, "the main database is allowed under a pin")
}

func TestScopesMainAndForStatement(t *testing.T) {
	e := openSQLite(t)
	var o Order
	require.NoError(t, e.in(idA).Scopes(tenancy.Main).First(&o).Error)
	require.Equal(t, "order 1 of main", o.Title)
	o, err := gorm.G[Order](e.db).Scopes(tenancy.ForStatement(idB)).First(context.Background())
	require.NoError(t, err)
	require.Equal(t, "order 1 of bravo", o.Title)
	_, err = gorm.G[Order](e.db).Scopes(tenancy.ForStatement("../x")).First(context.Background())
	require.ErrorIs(t, err, tenancy.ErrInvalidTenant)
}

func TestForIsBoundWhateverIsDerived(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		a := tenancy.For(e.db, idA)
		before := e.state()
		require.ErrorIs(t, a.WithContext(e.ctx(idB)).Begin().Error, tenancy.ErrTenantMismatch)
		require.ErrorIs(t, tenancy.For(a, idB).Error, tenancy.ErrTenantMismatch)
		require.ErrorIs(t, tenancy.For(e.db, "").Error, tenancy.ErrInvalidTenant)
		require.ErrorIs(t, tenancy.For(e.db, "").First(&Order{}).Error, tenancy.ErrInvalidTenant)
		require.ErrorIs(t, tenancy.For(e.db, "no/id").Row().Scan(new(int)), tenancy.ErrInvalidTenant)
		require.Empty(t, e.state().changed(before))

		// After a default transaction GORM puts the db's own pool back.
		res := a.Create(&Tag{Name: "one"})
		require.NoError(t, res.Error)
		require.ErrorIs(t, a.WithContext(e.ctx(idB)).Create(&Tag{Name: "x"}).Error, tenancy.ErrTenantMismatch)
		require.NoError(t, a.WithContext(context.Background()).Session(&gorm.Session{PrepareStmt: true}).Create(&Tag{Name: "two"}).Error)
		require.Equal(t, []string{"tag of acme", "one", "two"}, e.dump(idA)["tags"])

		var p Plan
		require.NoError(t, a.First(&p).Error, "main models are still main's")
		require.Equal(t, "plan of main", p.Name)
		_, err := a.DB()
		require.ErrorContains(t, err, "tenancy.Conn")
		require.ErrorContains(t, err, "OpenDB")

		require.NoError(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tenancy.For(tx, idA).Create(&Tag{Name: "three"}).Error)
			require.ErrorIs(t, tenancy.For(tx, idB).Error, tenancy.ErrTenantMismatch)
			return nil
		}))
		require.Equal(t, []string{"tag of acme", "one", "two", "three"}, e.dump(idA)["tags"])
	})
}

func TestWith(t *testing.T) {
	e := openSQLite(t)
	require.ErrorIs(t, tenancy.With(context.Background(), e.db, idA, func(ctx context.Context, db *gorm.DB) error {
		id, ok := tenant.ID(ctx)
		require.True(t, ok)
		require.Equal(t, idA, id)
		require.NoError(t, db.Create(&Tag{Name: "w"}).Error)
		require.NoError(t, e.db.WithContext(ctx).Create(&Tag{Name: "w2"}).Error)
		return errBoom
	}), errBoom)
	require.Equal(t, []string{"tag of acme", "w", "w2"}, e.dump(idA)["tags"], "With begins no transaction")
	for _, c := range []struct {
		ctx    context.Context
		db     *gorm.DB
		id     string
		reason error
	}{
		{context.Background(), e.db, "", tenancy.ErrInvalidTenant},
		{context.Background(), e.db, "a b", tenancy.ErrInvalidTenant},
		{tenant.Pin(context.Background(), idA), e.db, idB, tenancy.ErrTenantMismatch},
		{context.Background(), tenancy.For(e.db, idA), idB, tenancy.ErrTenantMismatch},
		{context.Background(), e.in(idA).Begin(), idB, tenancy.ErrTenantMismatch},
	} {
		err := tenancy.With(c.ctx, c.db, c.id, func(context.Context, *gorm.DB) error { t.Error("fn ran"); return nil })
		require.ErrorIs(t, err, c.reason)
		if tx, ok := c.db.Statement.ConnPool.(gorm.TxCommitter); ok {
			require.NoError(t, tx.Rollback())
		}
	}
}

func TestConn(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		title := func(ctx context.Context, db *gorm.DB) (s string, err error) {
			err = tenancy.Conn(ctx, db, func(c *sql.Conn) error {
				return c.QueryRowContext(ctx, "SELECT title FROM orders ORDER BY id").Scan(&s)
			})
			return s, err
		}
		for _, id := range []string{idA, idB} {
			s, err := title(e.ctx(id), e.db)
			require.NoError(t, err)
			require.Equal(t, "order 1 of "+id, s)
		}
		s, err := title(tenant.Main(context.Background()), e.db)
		require.NoError(t, err)
		require.Equal(t, "order 1 of main", s)
		s, err = title(context.Background(), tenancy.For(e.db, idB))
		require.NoError(t, err)
		require.Equal(t, "order 1 of bravo", s)
		_, err = title(context.Background(), e.db)
		require.ErrorIs(t, err, tenancy.ErrNoTenant)
		_, err = title(e.ctx(idB), tenancy.For(e.db, idA))
		require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
		require.ErrorIs(t, tenancy.Conn(e.ctx(idA), e.db, func(*sql.Conn) error { return errBoom }), errBoom)

		// GORM on this connection: proved to be the tenant's, also after
		// its pool was evicted, and refused for anyone else.
		require.NoError(t, tenancy.Conn(e.ctx(idA), e.db, func(c *sql.Conn) error {
			e.plugin.Evict(idA)
			on := e.in(idA)
			on.Statement.ConnPool = c
			if err := on.Create(&Tag{Name: "on the connection"}).Error; err != nil {
				return err
			}
			other := e.in(idB)
			other.Statement.ConnPool = c
			require.ErrorIs(t, other.Create(&Tag{Name: "x"}).Error, tenancy.ErrTenantMismatch)
			return nil
		}))
		require.Equal(t, []string{"tag of acme", "on the connection"}, e.dump(idA)["tags"])
		require.Equal(t, []string{"tag of bravo"}, e.dump(idB)["tags"])
		err = e.in(idA).Transaction(func(tx *gorm.DB) error {
			return tenancy.Conn(e.ctx(idA), tx, func(*sql.Conn) error { return nil })
		})
		require.ErrorContains(t, err, "SQLTx")
	})
}

func TestSQLTx(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		insert := func(tx *gorm.DB) error {
			inner, err := tenancy.SQLTx(tx)
			if err != nil {
				return err
			}
			_, err = inner.Exec("UPDATE tags SET name = 'by the outbox'")
			return err
		}
		require.ErrorIs(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
			require.NoError(t, insert(tx))
			return errBoom
		}), errBoom)
		require.Equal(t, []string{"tag of acme"}, e.dump(idA)["tags"])
		require.NoError(t, e.in(idA).Transaction(insert))
		require.NoError(t, e.db.Session(&gorm.Session{PrepareStmt: true, Context: e.ctx(idB)}).Transaction(insert))
		require.Equal(t, []string{"by the outbox"}, e.dump(idA)["tags"])
		require.Equal(t, []string{"by the outbox"}, e.dump(idB)["tags"])
		require.Equal(t, []string{"tag of main"}, e.dump(mainName)["tags"])
		_, err := tenancy.SQLTx(e.in(idA))
		require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
		require.ErrorIs(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
			_, err := tenancy.SQLTx(tx.WithContext(e.ctx(idB)))
			require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
			return nil
		}), tenancy.ErrTenantMismatch)
	})
}

func TestOpenDB(t *testing.T) {
	e := openSQLite(t)
	db, err := e.plugin.OpenDB(context.Background(), idB)
	require.NoError(t, err)
	var s string
	require.NoError(t, db.QueryRow("SELECT title FROM orders").Scan(&s))
	require.Equal(t, "order 1 of bravo", s)
	require.NoError(t, db.Close())
	for id, reason := range map[string]error{"": tenancy.ErrNoTenant, "nobody": tenancy.ErrTenantNotFound, "/": tenancy.ErrInvalidTenant} {
		_, err = e.plugin.OpenDB(context.Background(), id)
		require.ErrorIs(t, err, reason)
	}
	require.NoError(t, e.plugin.Close(context.Background()))
	_, err = e.plugin.OpenDB(context.Background(), idB)
	require.ErrorIs(t, err, tenancy.ErrClosed)
	require.ErrorIs(t, e.in(idA).First(&Order{}).Error, tenancy.ErrClosed)
}

func ids(list ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range list {
			if id == "!" {
				yield("", errBoom)
				return
			}
			if !yield(id, nil) {
				return
			}
		}
	}
}

func TestNotUsed(t *testing.T) {
	db, err := gorm.Open(nil, &gorm.Config{})
	require.NoError(t, err)
	require.ErrorContains(t, tenancy.Verify(db), "db.Use(tenancy.New(cfg))")
	require.ErrorContains(t, tenancy.For(db, idA).Error, "db.Use(tenancy.New(cfg))")
	require.ErrorContains(t, tenancy.Conn(context.Background(), db, nil), "db.Use(tenancy.New(cfg))")
	_, ok := tenancy.From(db)
	require.False(t, ok)
}

func TestForInATransactionWithoutATenantInTheContext(t *testing.T) {
	e := openSQLite(t)
	require.NoError(t, tenancy.For(e.db, idA).Transaction(func(tx *gorm.DB) error {
		return gorm.G[Tag](tx).Create(context.Background(), &Tag{Name: "new"})
	}))
	require.Equal(t, []string{"tag of acme", "new"}, e.dump(idA)["tags"])
}
