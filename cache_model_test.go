package tenancy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestCacheInvariants drives a cache with leases and turns at random. After every
// step it checks the invariants I1, I2, I3 and I11 of the design, and counts
// everything again.
func TestCacheInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &cacheModel{c: newCacheTest(t, Limits{MaxPools: rapid.IntRange(1, 4).Draw(rt, "max"), IdleTimeout: 10 * time.Minute})}
			m.c.o.fail = func(format string, args ...any) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.faults = append(m.faults, fmt.Sprintf(format, args...))
			}
			m.c.o.before = func(context.Context, string) error {
				answer := make(chan error, 1)
				m.mu.Lock()
				m.opening = append(m.opening, answer)
				m.mu.Unlock()
				return <-answer
			}
			m.c.o.make = func(p *fakePool) {
				if p.id < "c" {
					p.place = "shared"
				}
			}
			m.c.o.check = func(_ context.Context, id string) (Cause, error) {
				if m.c.o.checked(id)%3 == 0 {
					return CauseChanged, nil
				}
				return "", nil
			}
			defer m.end(rt)
			rt.Repeat(map[string]func(*rapid.T){
				"acquire": func(rt *rapid.T) { m.want(rt, false, false) },
				"sweep":   func(rt *rapid.T) { m.want(rt, true, false) },
				"turn":    func(rt *rapid.T) { m.want(rt, true, true) },
				"turn2":   func(rt *rapid.T) { m.want(rt, true, true) },
				"back":    m.back,
				"back2":   m.back,
				"give up": func(rt *rapid.T) {
					if n := len(m.pending); n > 0 {
						m.pending[rapid.IntRange(0, n-1).Draw(rt, "pending")].cancel()
					}
				},
				"evict": func(rt *rapid.T) {
					m.c.evict(rapid.SampledFrom(modelIDs).Draw(rt, "id"), CauseEvicted)
				},
				"answer":  func(rt *rapid.T) { m.answer(rt) },
				"answer2": func(rt *rapid.T) { m.answer(rt) },
				"advance": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 700).Draw(rt, "seconds")) * time.Second)
				},
				"news": func(*rapid.T) { m.c.recheckAll() },
				"":     m.check,
			})
		})
	})
}

var modelIDs = []string{"a", "b", "c", "d", "e", "f"}

type cacheModel struct {
	c       *cacheTest
	mu      sync.Mutex
	faults  []string
	opening []chan error
	pending []pendingLease
	held    []heldLease
}

type pendingLease struct {
	got    <-chan result
	cancel context.CancelFunc
	turn   bool
}

type heldLease struct {
	e    *entry
	turn bool
}

func (m *cacheModel) want(rt *rapid.T, sweep, turn bool) {
	id := rapid.SampledFrom(modelIDs).Draw(rt, "id")
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan result, 1)
	go func() {
		var r result
		if turn {
			r.e, r.err = m.c.cache.beginTurn(ctx, id)
		} else {
			r.e, r.err = m.c.cache.acquire(ctx, id, sweep)
		}
		out <- r
	}()
	m.pending = append(m.pending, pendingLease{out, cancel, turn})
}

func (m *cacheModel) give(h heldLease) {
	if h.turn {
		m.c.endTurn(h.e)
	} else {
		m.c.release(h.e)
	}
}

func (m *cacheModel) back(rt *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(rt, "held")
	h := m.held[i]
	m.held = slices.Delete(m.held, i, i+1)
	m.give(h)
}

func (m *cacheModel) answer(rt *rapid.T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.opening) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.opening)-1).Draw(rt, "opening")
	var err error
	if rapid.IntRange(0, 4).Draw(rt, "fails") == 0 {
		err = errors.New("no")
	}
	m.opening[i] <- err
	m.opening = slices.Delete(m.opening, i, i+1)
}

func (m *cacheModel) settle() {
	synctest.Wait()
	m.pending = slices.DeleteFunc(m.pending, func(w pendingLease) bool {
		select {
		case r := <-w.got:
			w.cancel()
			if r.err == nil {
				m.held = append(m.held, heldLease{r.e, w.turn})
			}
			return true
		default:
			return false
		}
	})
}

func (m *cacheModel) check(rt *rapid.T) {
	m.settle()
	m.mu.Lock()
	faults, opening := m.faults, len(m.opening)
	m.mu.Unlock()
	if len(faults) > 0 {
		rt.Fatalf("%v", faults)
	}
	c := m.c.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	pools, leased, refs, turns, open := 0, 0, 0, 0, 0
	current := map[string]*entry{}
	for e := range c.live {
		refs += e.refs
		turns += e.turns
		if e.turns < 0 || e.refs < 0 {
			rt.Fatalf("%s: %d turns, %d leases", e.id, e.turns, e.refs)
		}
		if e.retired && e.refs == 0 {
			rt.Fatalf("%s is retired and unused, but still there", e.id)
		}
		if e.pool != nil && !e.pool.(*fakePool).isRetired() {
			open++
		}
		if e.retired {
			continue
		}
		if current[e.id] != nil {
			rt.Fatalf("%s has two current entries", e.id)
		}
		current[e.id] = e
		if in, ok := c.lru.Peek(e.id); !ok || in != e {
			rt.Fatalf("the current entry of %s is not in the map", e.id)
		}
		if !e.opened {
			continue
		}
		if e.transient {
			if e.turns == 0 && e.refs == 0 {
				rt.Fatalf("%s is transient, and has no turn", e.id)
			}
			continue
		}
		pools++
		if e.refs > 0 {
			leased++
		}
	}
	if pools != c.pools || leased != c.leased {
		rt.Fatalf("%d pools, counted %d; %d leased, counted %d", pools, c.pools, leased, c.leased)
	}
	if c.lru.Len() != len(current) {
		rt.Fatalf("the map has %d entries, %d are live", c.lru.Len(), len(current))
	}
	retired := 0
	for _, p := range m.c.o.pools {
		if p.isRetired() {
			retired++
		}
	}
	if len(m.c.o.pools) != retired+open {
		rt.Fatalf("%d pools were opened, %d retired, %d are live", len(m.c.o.pools), retired, open)
	}
	for place, e := range c.byPlace {
		if e.retired {
			rt.Fatalf("%v is kept for %s, which is retired", place, e.id)
		}
	}
	want, wantTurns := len(m.pending)+opening, 0
	for _, h := range m.held {
		if !h.turn {
			want++
			if h.e.pool.(*fakePool).isRetired() {
				rt.Fatalf("the pool of %s is retired but leased", h.e.id)
			}
		} else if _, ok := c.live[h.e]; ok { // else it was retired under its turn
			wantTurns++
		}
	}
	if refs != want || turns != wantTurns {
		rt.Fatalf("%d leases are counted, %d are out; %d turns are counted, %d are out", refs, want, turns, wantTurns)
	}
	if excess := pools - c.max - max(0, leased-(c.max+1)/2); excess > 0 {
		rt.Fatalf("%d pools too many: %d open, %d of them in use, the limit is %d", excess, pools, leased, c.max)
	}
}

func (m *cacheModel) end(rt *rapid.T) {
	closed := make(chan error, 1)
	go func() { closed <- m.c.close(context.Background()) }()
	for range 100 {
		m.settle()
		m.mu.Lock()
		for _, answer := range m.opening {
			answer <- nil
		}
		m.opening = nil
		m.mu.Unlock()
		for _, h := range m.held {
			m.give(h)
		}
		m.held = nil
		if len(m.pending) == 0 {
			break
		}
	}
	if err := <-closed; err != nil {
		rt.Errorf("close: %v", err)
	}
	for _, p := range m.c.o.pools {
		if !p.isRetired() {
			rt.Errorf("the pool of %s outlived close", p.id)
		}
	}
}
