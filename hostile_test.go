package tenancy_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func ctxOf(id string) context.Context { return tenant.Ctx(context.Background(), id) }

var hostileIDs = []string{
	"", " ", ".", "..", "/", "../acme", "..\\acme", "acme/../bravo", "./acme", "/etc/passwd", "acme/", "%2e%2e%2facme",
	"acme'", `acme"`, "acme`", "acme; DROP TABLE orders", "acme'--", "' OR '1'='1", "acme\x00", "\x00", "acme\n", "acme\r\nx", "\x1b[31m",
	"acme ", " acme", "acme\t", "ACME", "Acme", "аcme", "acmé", "acme\u0301", "acme\u200b", "\u202eemca", "ａｃｍｅ", "\xff\xfe",
	"-acme", "_acme", "--", "-", "_", "acme?sslmode=disable", "acme&x=1", "acme@host", "acme:5432", "acme#", "acme.db", "file:acme", "acme=1",
	"main", "postgres", "template1", "null", "nil", "0", strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("é", 32),
	strings.Repeat("a", 1<<16), "acme$(id)", "${acme}", "%s%n", "*",
}

// refused reports what is wrong with how e treats an id that no tenant has.
func refused(t *testing.T, e *env, id string) {
	t.Helper()
	e.calls.reset()
	var orders []Order
	ctx := ctxOf(id)
	for name, do := range map[string]func() error{
		"find":   func() error { return e.db.WithContext(ctx).Find(&orders).Error },
		"create": func() error { return e.db.WithContext(ctx).Create(&Order{Title: "x"}).Error },
		"exec":   func() error { return e.db.WithContext(ctx).Exec("DELETE FROM orders").Error },
		"begin":  func() error { return e.db.WithContext(ctx).Begin().Error },
		"scope":  func() error { return e.db.Scopes(tenancy.WithTenant(id)).Find(&orders).Error },
		"with": func() error {
			return tenancy.With(context.Background(), e.db, id, func(_ context.Context, db *gorm.DB) error {
				return db.Find(&orders).Error
			})
		},
		"row": func() error {
			var n int
			return e.db.WithContext(ctx).Raw("SELECT 1").Row().Scan(&n)
		},
		"open": func() error {
			db, err := e.plugin.OpenDB(context.Background(), id)
			if err == nil {
				_ = db.Close()
			}
			return err
		},
	} {
		err := do()
		want := tenancy.ErrTenantNotFound
		if tenant.Validate(id) != nil {
			want = tenancy.ErrInvalidTenant
		}
		require.ErrorIs(t, err, want, "%s %q", name, id)
		for _, r := range err.Error() {
			require.False(t, r < ' ' || r == 0x7f, "%s %q: a control character in %q", name, id, err)
		}
	}
	require.Empty(t, e.calls.list(), "%q", id)
	e.plugin.Evict(id)
	require.NoError(t, e.plugin.Drain(context.Background(), id))
}

func TestHostileIDs(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		before := e.dumps()
		for _, id := range hostileIDs {
			refused(t, e, id)
		}
		require.Equal(t, before, e.dumps())
		require.Zero(t, e.plugin.Stats().Pools)
	})
}

func FuzzTenantID(f *testing.F) {
	for _, id := range hostileIDs {
		f.Add(id)
	}
	f.Add(idA)
	e := openSQLite(f)
	f.Fuzz(func(t *testing.T, id string) {
		if id == idA || id == idB {
			return
		}
		refused(t, e, id)
	})
}

// Ids that differ only in case are different tenants.
func TestIDsDifferByCase(t *testing.T) {
	ids := []string{"acme", "Acme", "ACME"}
	e := openSQLite(t, withTenants(ids...))
	for _, id := range ids {
		var o Order
		require.NoError(t, e.in(id).First(&o).Error)
		require.Equal(t, "order 1 of "+id, o.Title)
		require.NoError(t, e.in(id).Create(&Tag{Name: "new of " + id}).Error)
	}
	for _, id := range ids {
		require.Equal(t, []string{"tag of " + id, "new of " + id}, e.dump(id)["tags"])
	}
}
