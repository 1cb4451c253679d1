package tenancy

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestBudgetModel does random things with the pools of one server, and checks
// after each that the rules hold: no more connections than the budget and each
// tenant's limit, nobody waits while what he waits for is there, and nothing is
// left in the end.
func TestBudgetModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &budgetModel{lab: newLab(t, Limits{
				MaxConnsPerServer: rapid.IntRange(1, 4).Draw(rt, "budget"),
				AcquireTimeout:    time.Duration(rapid.SampledFrom([]int{50, 10_000}).Draw(rt, "patience")) * time.Millisecond,
			})}
			for i := range 5 {
				m.pool(fmt.Sprint(i), 1+i%3)
			}
			m.dial = func(ctx context.Context, _ string) error {
				m.mu.Lock()
				mode := m.mode
				m.mu.Unlock()
				switch mode {
				case "down":
					return errLabDown
				case "full":
					return errLabFull
				case "silent":
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
			defer m.finish(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"want":    m.want,
				"want2":   m.want,
				"back":    m.back,
				"back2":   m.back,
				"give up": m.giveUp,
				"evict":   m.evict,
				"advance": m.advance,
				"mode":    m.setMode,
				"":        m.check,
			})
		})
	})
}

type budgetModel struct {
	*lab
	mode    string
	pending []pendingConn
	held    []*sql.Conn
}

type pendingConn struct {
	got    <-chan outcome
	cancel context.CancelFunc
}

func (m *budgetModel) pick(rt *rapid.T) int {
	return rapid.IntRange(0, 4).Draw(rt, "tenant")
}

// current are the pools that are not retired: the last five.
func (m *budgetModel) current(i int) *pool { return m.pools[len(m.pools)-5+i] }

func (m *budgetModel) want(rt *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	m.pending = append(m.pending, pendingConn{later(ctx, m.current(m.pick(rt))), cancel})
}

func (m *budgetModel) back(rt *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(rt, "held")
	c := m.held[i]
	m.held = slices.Delete(m.held, i, i+1)
	if err := c.Close(); err != nil {
		rt.Fatal(err)
	}
}

func (m *budgetModel) giveUp(rt *rapid.T) {
	if len(m.pending) == 0 {
		return
	}
	m.pending[rapid.IntRange(0, len(m.pending)-1).Draw(rt, "pending")].cancel()
}

// evict retires a pool that nobody waits in, as the cache does, and opens it
// anew.
func (m *budgetModel) evict(rt *rapid.T) {
	i := m.pick(rt)
	old := m.current(i)
	if old.dialer.stats().Waiting > 0 {
		return
	}
	old.retire()
	m.pool(old.dialer.tenant, old.limit) // at the end of pools
	last := len(m.pools) - 1
	at := last - 5 + i
	fresh := m.pools[last]
	copy(m.pools[1:at+1], m.pools[:at]) // the retired ones are kept in front
	m.pools[0] = old
	m.pools = slices.Insert(m.pools[:last], at+1, fresh)
}

func (m *budgetModel) advance(rt *rapid.T) {
	time.Sleep(time.Duration(rapid.SampledFrom([]int{1, 5, 15, 40, 200, 2000}).Draw(rt, "ms")) * time.Millisecond)
}

func (m *budgetModel) setMode(rt *rapid.T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode = rapid.SampledFrom([]string{"", "", "", "down", "full", "silent"}).Draw(rt, "mode")
}

func (m *budgetModel) settle() {
	synctest.Wait()
	m.pending = slices.DeleteFunc(m.pending, func(p pendingConn) bool {
		select {
		case got := <-p.got:
			p.cancel()
			if got.err == nil {
				m.held = append(m.held, got.conn)
			}
			return true
		default:
			return false
		}
	})
}

func (m *budgetModel) check(rt *rapid.T) {
	m.settle()
	m.mu.Lock()
	peak := m.peak
	m.mu.Unlock()
	s := m.pools[0].dialer.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used > s.size || s.used != len(s.links) || peak > s.size {
		rt.Fatalf("%d tokens of %d, %d links, %d connections at most", s.used, s.size, len(s.links), peak)
	}
	waiters, tickets, closing := 0, 0, 0
	for _, p := range m.pools {
		d := p.dialer
		waiters += d.waiters.Len()
		tickets += len(d.tickets)
		open := int(d.open.Load())
		if open > d.limit {
			rt.Fatalf("tenant %s has %d connections, more than %d", d.tenant, open, d.limit)
		}
		if d.retired && d.waiters.Len() > 0 {
			rt.Fatalf("somebody waits in a retired pool")
		}
		if uncovered := d.waiters.Len() - d.dialing - len(d.tickets); uncovered > 0 && open+len(d.tickets) < d.limit {
			rt.Fatalf("tenant %s: %d wait without a ticket", d.tenant, uncovered)
		}
		if len(d.tickets) > 0 && d.dialing+len(d.tickets) > d.waiters.Len() {
			rt.Fatalf("tenant %s: %d tickets and %d dials for %d waiters", d.tenant, len(d.tickets), d.dialing, d.waiters.Len())
		}
	}
	if int64(waiters) != s.waiting.Load() || tickets != s.tickets.Len() {
		rt.Fatalf("%d waiters, counted %d; %d tickets, counted %d", waiters, s.waiting.Load(), tickets, s.tickets.Len())
	}
	if tickets > 0 && s.used < s.size {
		rt.Fatalf("%d hold a ticket while only %d of %d tokens are taken", tickets, s.used, s.size)
	}
	now := s.clock()
	for i, l := range s.links {
		if l.at != i {
			rt.Fatalf("link %d thinks it is %d", i, l.at)
		}
		if l.closing {
			closing++
		}
		if l.handle == nil || l.handle.state.Load() != handleIdle {
			continue
		}
		if l.dialer.waiters.Len() > 0 {
			rt.Fatalf("tenant %s has an idle connection and a waiter", l.dialer.tenant)
		}
		if tickets > s.closing && (now > l.born+quantum || s.wake == 0) {
			rt.Fatalf("tenant %s keeps an idle connection for %s while others wait", l.dialer.tenant, now-l.born)
		}
	}
	if closing != s.closing {
		rt.Fatalf("%d links are closing, counted %d", closing, s.closing)
	}
}

// finish lets everything come to its end.
func (m *budgetModel) finish(rt *rapid.T) {
	m.mu.Lock()
	m.mode = ""
	m.mu.Unlock()
	for range 10_000 {
		m.settle()
		for _, c := range m.held {
			_ = c.Close()
		}
		m.held = nil
		if len(m.pending) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(m.pending) > 0 {
		rt.Errorf("%d wait still", len(m.pending))
	}
	m.end()
}
