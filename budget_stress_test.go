package tenancy

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestBudgetStress is in real time: everything that database/sql can do
// with a connection, under pressure, with callers who give up.
func TestBudgetStress(t *testing.T) {
	l := newLab(t, Limits{MaxConnsPerServer: 3, AcquireTimeout: 2 * time.Second, ConnMaxLifetime: 300 * time.Millisecond})
	defer l.end()
	pools := []*pool{l.pool("a", 2), l.pool("b", 2), l.pool("c", 3)}
	until := time.Now().Add(4 * time.Second)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			for time.Now().Before(until) {
				p := pools[rand.N(len(pools))]
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.N(30))*time.Millisecond)
				switch rand.N(6) {
				case 0, 1:
					_, _ = p.db.ExecContext(ctx, "x")
				case 2:
					if tx, err := p.db.BeginTx(ctx, nil); err == nil {
						_, _ = tx.ExecContext(ctx, "x")
						if rand.N(2) == 0 {
							_ = tx.Rollback()
						} else {
							_ = tx.Commit()
						}
					}
				case 3:
					if s, err := p.db.PrepareContext(ctx, "x"); err == nil {
						_, _ = s.ExecContext(ctx)
						_ = s.Close()
					}
				case 4:
					if c, err := p.db.Conn(ctx); err == nil {
						s, err := c.PrepareContext(ctx, "x")
						if err == nil && rand.N(2) == 0 {
							_ = s.Close()
						}
						_ = c.Close()
						if err == nil {
							_ = s.Close()
						}
					}
				case 5:
					if c, err := p.db.Conn(ctx); err == nil {
						_ = c.Raw(func(c any) error {
							return nil
						})
						_ = c.Close()
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
}
