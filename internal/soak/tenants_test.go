package soak

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// oneTenant: what is wrong with one tenant's database or login is that tenant's
// affair. The others on the server notice nothing, and its breaker stays closed.
func (f *fleet) oneTenant(t *testing.T) {
	const budget, workers, others = 6, 5, 5
	cluster := f.clusters[0]
	rotated, dropped, closed := f.tenants[others], f.tenants[others+1], f.tenants[others+2]

	// One role needs a password, which the rest of the server does not.
	admin := cluster.Admin(t)
	ctx := t.Context()
	exec := func(statement string) {
		t.Helper()
		_, err := admin.Exec(ctx, statement)
		require.NoError(t, err, statement)
	}
	var hba string
	require.NoError(t, admin.QueryRow(ctx, "SHOW hba_file").Scan(&hba))
	exec("COPY (VALUES ('host all soak_app 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')) TO '" + hba + "'")
	exec("SELECT pg_reload_conf()")
	exec("CREATE ROLE soak_app SUPERUSER LOGIN PASSWORD 'xx-first-xx'")
	dsn := func(password string) string {
		u, err := url.Parse(cluster.DSN(rotated.database))
		require.NoError(t, err)
		u.User = url.UserPassword("soak_app", password)
		return u.String()
	}
	// The role is asked for its password once the reload has got through.
	eventually(t, "a wrong password is refused", func() bool {
		conn, err := pgx.Connect(ctx, dsn("wrong"))
		if err == nil {
			_ = conn.Close(ctx)
		}
		return err != nil
	})

	var current atomic.Value // the DSN of rotated
	current.Store(dsn("xx-first-xx"))
	static := f.static()
	a := f.open(t, tenancy.Limits{MaxConnsPerServer: budget, AcquireTimeout: patience}, func(c *tenancy.Config) {
		c.Resolver = tenancy.ResolverFunc(func(ctx context.Context, id string) (tenancy.Database, error) {
			if id == rotated.id {
				return tenancy.Database{DSN: current.Load().(string)}, nil
			}
			return static.Resolve(ctx, id)
		})
	})
	s := &side{app: a, cluster: cluster, tenants: f.tenants[:others], time: patience}
	working, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { s.work(working) })
	}
	for _, c := range []*customer{rotated, dropped, closed} {
		require.NoError(t, a.work(ctx, c))
	}

	end := func(c *customer) {
		exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + c.database + "'")
	}
	// refused waits until c's callers are refused for code, and sees that this
	// goes on, and is fast, and that it concerns nobody else.
	refused := func(c *customer, code string) {
		t.Helper()
		var pgErr *pgconn.PgError
		eventually(t, "refused for "+code, func() bool {
			err := a.read(ctx, c) // the first ones may meet a connection that has just broken
			require.NotErrorIs(t, err, tenancy.ErrPoolExhausted)
			return errors.As(err, &pgErr) && pgErr.Code == code
		})
		dials := s.stats(t).DialsFailed
		for range 50 {
			err := a.read(ctx, c)
			require.ErrorIs(t, err, tenancy.ErrUnavailable)
			require.ErrorContains(t, err, c.id)
			require.NotContains(t, err.Error(), "xx-first-xx")
		}
		if n := s.stats(t).DialsFailed - dials; n > 10 {
			t.Errorf("50 calls of a tenant that is refused connected %d times", n)
		}
		s.progress(t, 50)
		x := s.stats(t)
		require.False(t, x.Down)
		require.Zero(t, x.Trips)
	}

	require.NoError(t, a.in(ctx, rotated).Transaction(func(tx *gorm.DB) error {
		if err := tx.First(&Sign{}).Error; err != nil {
			return err
		}
		exec("ALTER ROLE soak_app PASSWORD 'second'")
		return tx.First(&Sign{}).Error
	}), "what is connected stays so")
	end(rotated)
	refused(rotated, "28P01")
	current.Store(dsn("second"))
	a.plugin.Evict(rotated.id)
	require.NoError(t, a.work(ctx, rotated), "at once, with the new password")

	exec("DROP DATABASE " + dropped.database + " WITH (FORCE)")
	refused(dropped, "3D000")
	require.NoError(t, dropped.create(""))
	dropped.items.Store(0)
	dropped.visits.Store(0)
	a.plugin.Evict(dropped.id)
	require.NoError(t, a.work(ctx, dropped), "at once, when it is there again")

	exec("ALTER DATABASE " + closed.database + " ALLOW_CONNECTIONS false")
	end(closed)
	refused(closed, "55000")
	exec("ALTER DATABASE " + closed.database + " ALLOW_CONNECTIONS true")
	eventually(t, "it is tried again by itself", func() bool { return a.read(ctx, closed) == nil })

	stop()
	wg.Wait()
	a.close(budget)
}

// saturated: a server that has no connection left, because others have them,
// is asked again for a while; that is neither its fault nor the tenant's.
func (f *fleet) saturated(t *testing.T) {
	const budget = 8
	cluster := f.clusters[0]
	a := f.open(t, tenancy.Limits{MaxConnsPerServer: budget, AcquireTimeout: patience})
	s := &side{app: a, cluster: cluster, tenants: f.tenants[:budget]}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.read(ctx, f.tenants[budget])) // so that there is a server in Stats
	require.NoError(t, a.plugin.Drain(ctx, f.tenants[budget].id))

	var foreign []*pgx.Conn
	release := func() {
		for _, c := range foreign {
			_ = c.Close(ctx)
		}
		foreign = nil
	}
	defer release()
	// Until it is full and stays so: a backend of the test before may be just
	// about to end.
	for full := 0; full < 10; {
		c, err := pgx.Connect(ctx, cluster.DSN("postgres"))
		if err != nil {
			require.ErrorContains(t, err, "53300")
			full++
			pause(ctx, 10*time.Millisecond)
			continue
		}
		full = 0
		foreign = append(foreign, c)
		require.LessOrEqual(t, len(foreign), maxConnections)
	}

	call := func() []error {
		errs := make([]error, budget)
		var wg sync.WaitGroup
		for i, c := range s.tenants {
			wg.Go(func() { errs[i] = s.read(ctx, c) })
		}
		wg.Wait()
		return errs
	}
	for range 2 { // more failures in a row than open a breaker
		for _, err := range call() {
			require.ErrorIs(t, err, tenancy.ErrPoolExhausted)
			require.ErrorContains(t, err, "53300")
			require.ErrorContains(t, err, "max_connections")
			require.NotErrorIs(t, err, tenancy.ErrUnavailable)
		}
	}
	x := s.stats(t)
	require.Zero(t, x.Trips)
	require.False(t, x.Down)
	require.Greater(t, x.Saturated, x.DialsFailed, "each was tried several times")

	// Callers that come while it is full get through when it is not any more.
	before := x.Saturated
	errs := make(chan []error, 1)
	go func() { errs <- call() }()
	eventually(t, "they have met the full server", func() bool { return s.stats(t).Saturated >= before+budget })
	release()
	for _, err := range <-errs {
		require.NoError(t, err)
	}
	require.Zero(t, s.stats(t).Trips)
	a.close(budget)
}
