package tenancy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyslog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// payload is a job as a queue stores it.
func payload(t *testing.T, ctx context.Context) []byte {
	t.Helper()
	meta := tenant.MapCarrier{}
	require.NoError(t, tenant.Inject(ctx, meta))
	text, err := json.Marshal(meta)
	require.NoError(t, err)
	return text
}

func received(t *testing.T, text []byte) tenant.Carrier {
	t.Helper()
	var meta tenant.MapCarrier
	require.NoError(t, json.Unmarshal(text, &meta))
	return meta
}

// A job works in the database of the tenant that enqueued it.
func TestCarriedToTenant(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for _, id := range []string{idA, idB} {
			before := e.dumps(id)
			ctx, err := tenant.Extract(context.Background(), received(t, payload(t, e.ctx(id))))
			require.NoError(t, err)
			var o Order
			require.NoError(t, e.db.WithContext(ctx).First(&o).Error)
			require.Equal(t, "order 1 of "+id, o.Title)
			require.NoError(t, e.db.WithContext(ctx).Create(&Tag{Name: "by the job"}).Error)
			require.Equal(t, []string{"tag of " + id, "by the job"}, e.dump(id)["tags"])
			require.Equal(t, before, e.dumps(id))

			other := map[string]string{idA: idB, idB: idA}[id]
			err = e.db.WithContext(tenant.Ctx(ctx, other)).First(&o).Error
			require.ErrorIs(t, err, tenancy.ErrTenantMismatch, "the worker is not pinned")
		}
	})
}

// A worker that overlooks Extract's error reaches no database: not main, not the
// one that its context named before, not the one that its db is bound to.
func TestCarriedNowhere(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		before := e.dumps()
		for name, c := range map[string]struct {
			meta tenant.MapCarrier
			err  error
		}{
			"missing": {tenant.MapCarrier{}, tenancy.ErrNoTenant},
			"empty":   {tenant.MapCarrier{tenant.CarrierKey: ""}, tenancy.ErrNoTenant},
			"invalid": {tenant.MapCarrier{tenant.CarrierKey: "a/b"}, tenancy.ErrInvalidTenant},
			"main":    {received(t, payload(t, tenant.Main(context.Background()))).(tenant.MapCarrier), tenant.ErrMain},
			"twice":   {tenant.MapCarrier{tenant.CarrierKey: idA, "Tenancy-Tenant": idB}, tenancy.ErrTenantMismatch},
		} {
			for from, ctx := range map[string]context.Context{
				"nothing":  context.Background(),
				"a tenant": e.ctx(idA),
				"a pin":    tenant.Pin(context.Background(), idA),
				"main":     tenant.Main(context.Background()),
			} {
				e.calls.reset()
				ctx, err := tenant.Extract(ctx, c.meta)
				require.ErrorIs(t, err, c.err, "%s, from %s", name, from)
				for kind, db := range map[string]*gorm.DB{
					"db":       e.db.WithContext(ctx),
					"bound db": tenancy.For(e.db, idB).WithContext(ctx),
				} {
					err := db.Create(&Tag{Name: "x"}).Error
					require.Error(t, err, "%s, from %s, by %s", name, from, kind)
					if kind == "db" {
						require.ErrorIs(t, err, tenancy.ErrNoTenant, "%s, from %s", name, from)
					}
					require.Error(t, db.Exec("DELETE FROM tags").Error, "%s, from %s, by %s", name, from, kind)
				}
				require.Empty(t, e.calls.list(), "%s, from %s", name, from)
			}
		}
		require.Equal(t, before, e.dumps())
	})
}

// Work for the main database goes there when the worker says so.
func TestCarriedToMain(t *testing.T) {
	e := openSQLite(t)
	for _, ctx := range []context.Context{context.Background(), e.ctx(idA), tenant.Pin(context.Background(), idA)} {
		jobCtx, err := tenant.Extract(ctx, received(t, payload(t, tenant.Main(e.ctx(idB)))))
		require.ErrorIs(t, err, tenant.ErrMain)
		for _, ctx := range []context.Context{tenant.Main(ctx), tenant.Main(jobCtx)} {
			var o Order
			require.NoError(t, e.db.WithContext(ctx).First(&o).Error)
			require.Equal(t, "order 1 of "+mainName, o.Title)
		}
	}
}

// What GORM logs of a statement says whose it was, when its logger is slog.
func TestStatementsLogTheirTenant(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(tenancyslog.NewHandler(slog.NewTextHandler(&buf, nil), nil))
	e := openSQLite(t, func(c *envConfig) {
		c.gorm.Logger = logger.NewSlogLogger(log, logger.Config{LogLevel: logger.Info})
	})
	for want, db := range map[string]*gorm.DB{
		idA:     e.in(idA),
		idB:     tenancy.For(e.db, idB),
		"_main": e.main(),
	} {
		buf.Reset()
		require.NoError(t, db.Find(&[]Tag{}).Error)
		line := strings.TrimSpace(buf.String())
		require.Contains(t, line, "FROM `tags`")
		require.True(t, strings.HasSuffix(line, " tenant="+want), line)
	}
}
