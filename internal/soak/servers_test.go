package soak

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

const (
	connectTimeout = time.Second
	// statementTime is what the app gives a statement: how long one hangs that
	// a server was at when it froze.
	statementTime = 3 * time.Second
	// backAfter is how soon the tenants of a server work again that is back.
	backAfter = 3 * time.Second
)

// side is one server and the load on its tenants.
type side struct {
	*app
	cluster      *pgtest.Cluster
	tenants      []*customer
	time         time.Duration // that the app gives a statement
	hurt         atomic.Bool   // callers that come now may fail
	outages      atomic.Int64
	done, failed atomic.Int64 // pieces of work
}

// TestServers breaks servers under load, in each of the ways in which a server
// breaks. The tenants of the others notice nothing; its own fail fast, and work
// again when it is back.
func TestServers(t *testing.T) {
	const tenants, budget, workers = 6, 6, 5 // of each server
	f := newFleet(t, tenants, startServer(t), startServer(t), startServer(t))
	a := f.open(t, tenancy.Limits{
		MaxConnsPerServer: budget,
		ConnectTimeout:    connectTimeout,
		AcquireTimeout:    patience, // the statement's ctx ends first
	})
	ctx, cancel := context.WithTimeout(context.Background(), *soakFor+3*patience)
	defer cancel()
	var sides []*side
	var wg sync.WaitGroup
	for i, cluster := range f.clusters {
		s := &side{app: a, cluster: cluster, tenants: f.tenants[i*tenants : (i+1)*tenants], time: statementTime}
		if i == 0 {
			s.time = patience // it is never broken
		}
		sides = append(sides, s)
		for range workers {
			wg.Go(func() { s.work(ctx) })
		}
	}
	sides[0].progress(t, 50, sides[1], sides[2])

	for began := time.Now(); ; {
		for _, fault := range []struct {
			name       string
			side       int
			begin, end func(*pgtest.Cluster)
		}{
			{"killed", 1, (*pgtest.Cluster).Kill, (*pgtest.Cluster).Restart},
			{"frozen", 2, (*pgtest.Cluster).Freeze, (*pgtest.Cluster).Thaw},
			{"shut down", 1, (*pgtest.Cluster).Stop, (*pgtest.Cluster).Restart}, // sessions are told
		} {
			t.Log(fault.name)
			s, healthy := sides[fault.side], slices.Delete(slices.Clone(sides), fault.side, fault.side+1)
			s.outages.Add(1)
			s.hurt.Store(true)
			fault.begin(s.cluster)
			s.broken(t, healthy)
			fault.end(s.cluster)
			s.back(t)
			s.progress(t, 50, healthy...)
		}
		if t.Failed() || time.Since(began) > *soakFor {
			break
		}
	}

	cancel()
	wg.Wait()
	a.close(budget)
	f.verify(t, false)
}

// work works on tenants of s until ctx ends.
func (s *side) work(ctx context.Context) {
	for ctx.Err() == nil {
		c := s.tenants[rand.IntN(len(s.tenants))]
		hurt, outages := s.hurt.Load(), s.outages.Load()
		// The end of the test cancels nothing: of a write that is cancelled
		// nobody knows whether it was committed.
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.time)
		err := s.app.work(one, c)
		cancel()
		switch {
		case err == nil:
			s.done.Add(1)
		case (hurt || outages != s.outages.Load()) && outage(err):
			if s.failed.Add(1)%100 == 0 {
				// They fail fast, and other callers need the processor.
				pause(ctx, 10*time.Millisecond)
			}
		default:
			s.t.Errorf("%s: %v", c.id, err)
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// outage reports whether err is what a caller may see of a server that breaks:
// not, for instance, a row of another tenant, or "sql: database is closed".
func outage(err error) bool {
	for _, target := range []error{tenancy.ErrUnavailable, tenancy.ErrPoolExhausted, context.DeadlineExceeded,
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone} {
		if errors.Is(err, target) {
			return true
		}
	}
	var netErr net.Error
	var pgErr *pgconn.PgError
	return errors.As(err, &netErr) || errors.As(err, &pgErr) && strings.HasPrefix(pgErr.Code, "57P") ||
		strings.Contains(err.Error(), "conn closed") // pgx, of a connection that broke in a transaction
}

// progress waits until n more pieces of work are done on s and on others.
func (s *side) progress(t testing.TB, n int64, others ...*side) {
	t.Helper()
	sides := append(others, s)
	before := make([]int64, len(sides))
	for i, s := range sides {
		before[i] = s.done.Load()
	}
	eventually(t, "progress", func() bool {
		for i, s := range sides {
			if s.done.Load() < before[i]+n {
				return t.Failed() // its workers have ended
			}
		}
		return true
	})
}

func (s *side) stats(t testing.TB) tenancy.ServerStats {
	t.Helper()
	all := s.plugin.Stats().Servers
	i := slices.IndexFunc(all, func(x tenancy.ServerStats) bool { return x.Server == s.cluster.Addr() })
	require.NotEqual(t, -1, i)
	return all[i]
}

// broken checks what callers see of s, which has just been broken.
func (s *side) broken(t testing.TB, healthy []*side) {
	t.Helper()
	began := time.Now()
	eventually(t, "the breaker opens", func() bool { return s.stats(t).Down })
	t.Logf("the breaker is open after %s: %+v", time.Since(began).Round(time.Millisecond), s.stats(t))

	// One caller in each pause is let through to try the server, and a few get a
	// connection that lay idle: used within the last second, it breaks under
	// their statement, and else a ping finds it dead, within a second. All others
	// are told at once.
	var took []time.Duration
	told := 0
	for i := range 40 {
		ctx, cancel := context.WithTimeout(context.Background(), statementTime)
		began := time.Now()
		err := s.read(ctx, s.tenants[i%len(s.tenants)])
		took = append(took, time.Since(began))
		cancel()
		if errors.Is(err, tenancy.ErrUnavailable) {
			told++
		} else if err == nil || !outage(err) {
			t.Errorf("while the server is down: %v", err)
		}
	}
	if told < len(took)/2 {
		t.Errorf("only %d of %d callers are told that the server is down", told, len(took))
	}
	slices.Sort(took)
	t.Logf("while it is down a call takes %s, %s at most", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > connectTimeout/2 {
		t.Errorf("while the server is down, half of the calls take more than %s", took[len(took)/2])
	}
	if !s.stats(t).Down {
		t.Error("the breaker has closed though the server is down")
	}
	healthy[0].progress(t, 50, healthy[1:]...)
	for _, h := range healthy {
		if x := h.stats(t); x.Down {
			t.Errorf("the breaker of a healthy server is open: %+v", x)
		}
	}
}

// back checks that s works, which has just come back.
func (s *side) back(t testing.TB) {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for _, c := range s.tenants {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			for {
				one, cancel := context.WithTimeout(ctx, statementTime)
				err := s.read(one, c)
				cancel()
				if err == nil {
					return
				}
				if ctx.Err() != nil {
					t.Errorf("%s does not come back: %v", c.id, err)
					return
				}
				pause(ctx, 10*time.Millisecond)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf("all tenants are back after %s", took.Round(time.Millisecond))
	if took > backAfter {
		t.Errorf("the last tenant was back %s after its server", took)
	}
	s.hurt.Store(false)

	if x := s.stats(t); x.Down {
		t.Errorf("the breaker is still open: %+v", x)
	}
}
