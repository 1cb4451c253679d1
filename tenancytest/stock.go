package tenancytest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
)

// stock makes copies of one template, and keeps those that are sandboxes for the
// next test. It never waits for a test to give one back: a test that waits for
// its parallel subtests would hold what they need.
type stock struct {
	server   Server
	template string
	version  int64 // of the schema; 0 if it is not known

	mu   sync.Mutex
	free []*place
	all  []*place // sandboxes, free or not
}

// place is a database that a test has for a while.
type place struct {
	Database
	stock     *stock
	what      string           // for messages
	bad       error            // of the end of its turn: not to be used again
	sandbox   Sandbox          // nil for a copy
	connector driver.Connector // of the sandbox, one for each turn
	ledger    *ledger          // of a copy; nil where nobody takes notes
}

// take returns a sandbox that has begun; or a copy, if own says so or where
// there are no sandboxes.
func (s *stock) take(ctx context.Context, own bool, what string) (*place, error) {
	own = own || os.Getenv(KeepEnv) == "1"
	if !own {
		if p := s.pop(); p != nil {
			p.what = what
			if err := p.begin(ctx); err != nil {
				s.scrap(p)
				return nil, err
			}
			return p, nil
		}
	}
	db, err := s.server.Clone(ctx, s.template)
	if err != nil {
		return nil, err
	}
	p := &place{Database: db, stock: s, what: what}
	if own {
		return p, nil
	}
	if p.sandbox, err = db.Sandbox(); err != nil || p.sandbox == nil {
		return p, err
	}
	s.mu.Lock()
	s.all = append(s.all, p)
	s.mu.Unlock()
	if err := p.begin(ctx); err != nil {
		s.scrap(p)
		return nil, err
	}
	return p, nil
}

func (p *place) begin(ctx context.Context) error {
	if err := p.sandbox.Begin(ctx); err != nil {
		return fmt.Errorf("beginning a sandbox: %w", err)
	}
	p.connector = p.sandbox.Connector()
	return nil
}

func (s *stock) pop() *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return nil
	}
	p := s.free[len(s.free)-1] // the one whose connection is warm
	s.free = s.free[:len(s.free)-1]
	return p
}

// end ends p's turn. A sandbox that says anything is not used again.
func (p *place) end(ctx context.Context) {
	if p.sandbox != nil {
		p.bad = p.sandbox.End(ctx)
	}
}

// giveBack takes p, whose turn has ended, for the next test.
func (s *stock) giveBack(p *place) {
	switch {
	case p.sandbox == nil:
		p.Discard()
		return
	case p.bad != nil:
		s.scrap(p)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, p)
	warm := max(2*runtime.GOMAXPROCS(0), 8)
	if len(s.free) > warm {
		// Some test had many at once, and servers have few connections: the one
		// whose next turn is farther than that is closed until then.
		_ = s.free[len(s.free)-warm-1].sandbox.Close()
	}
}

func (s *stock) scrap(p *place) {
	_ = p.sandbox.Close()
	p.Discard()
}

func (s *stock) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.all {
		errs = append(errs, p.sandbox.Close())
	}
	return errors.Join(errs...)
}
