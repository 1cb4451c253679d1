package soak

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

// A server that hangs while all connections to it are in use leaves no room to
// find out by a connect: pgx holds on to a connection whose statement was
// cancelled until the server has hung up, for up to 15 seconds. Callers must
// not wait for that, one after the other.
func TestFrozenWithNoRoom(t *testing.T) {
	const budget = 4
	f := newFleet(t, 3*budget, startServer(t))
	a := f.open(t, tenancy.Limits{
		MaxConnsPerServer: budget,
		ConnectTimeout:    connectTimeout,
		AcquireTimeout:    10 * time.Second,
	})
	s := &side{app: a, cluster: f.clusters[0], tenants: f.tenants}
	admin := s.cluster.Admin(t)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i := range budget {
		wg.Go(func() {
			if err := a.in(ctx, f.tenants[i]).Exec("SELECT pg_sleep(60)").Error; !errors.Is(err, context.Canceled) {
				t.Errorf("a statement that hangs: %v", err)
			}
		})
	}
	eventually(t, "all connections are in use", func() bool {
		var n int
		require.NoError(t, admin.QueryRow(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'").Scan(&n))
		return n == budget
	})
	s.cluster.Freeze()
	cancel() // as their deadlines would
	wg.Wait()

	// Callers come one after the other, each with some time.
	began := time.Now()
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), statementTime)
		start := time.Now()
		err := s.read(ctx, s.tenants[i%len(s.tenants)])
		cancel()
		t.Logf("after %s: in %s: %v", start.Sub(began).Round(time.Millisecond), time.Since(start).Round(time.Millisecond), err)
		require.Error(t, err)
		if errors.Is(err, tenancy.ErrUnavailable) && time.Since(start) < connectTimeout/2 {
			break
		}
		if time.Since(began) > 3*statementTime {
			t.Errorf("callers still wait %s after the server froze", time.Since(began))
			break
		}
	}
	s.cluster.Thaw()
	s.back(t)
	a.close(budget)
	f.verify(t, true)
}
