package tenancytest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Kit gives databases to the tests of one package. It is made by [New], and may
// be used by tests that run in parallel.
type Kit struct {
	cfg Config
	bad error

	mu     sync.Mutex
	opened bool
	closed bool
	server Server // nil before open, and after it failed
	err    error  // of the open
	main   *stock
	tenant *stock
}

// New returns a Kit. Nothing is opened before a test asks for an Env. A Config
// that is not good fails that test.
func New(cfg Config) *Kit { return &Kit{cfg: cfg, bad: cfg.validate()} }

// Bounds of what a server is asked for; a machine that is busy with tests is
// slow.
const (
	openTimeout  = 2 * time.Minute // with templates
	closeTimeout = 2 * time.Minute
	callTimeout  = time.Minute
	drainTimeout = 10 * time.Second
)

// Run runs the tests, removes what was made for them, and returns the exit
// code:
//
//	func TestMain(m *testing.M) { os.Exit(kit.Run(m)) }
//
// Without it, the next run removes that.
func (k *Kit) Run(m M) int {
	code := m.Run()
	if err := k.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if code == 0 {
			code = 1
		}
	}
	return code
}

// Main is [Kit.Run] for a TestMain that hands its M on, to a leak detector or to
// another Kit:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(kit.Main(m)) }
func (k *Kit) Main(m M) M { return runner{k, m} }

type runner struct {
	k *Kit
	m M
}

func (r runner) Run() int { return r.k.Run(r.m) }

// Close removes what was made, for a TestMain that does more than Run. No test
// may use the Kit any more.
func (k *Kit) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	if k.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := errors.Join(k.main.close(), k.tenant.close(), k.server.Close(ctx))
	if err != nil {
		return fmt.Errorf("tenancytest: %w", err)
	}
	return nil
}

// open opens the server and makes the templates, once.
func (k *Kit) open() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bad != nil {
		return k.bad
	}
	if k.closed {
		return errors.New("tenancytest: the Kit is closed: Run has ended")
	}
	if k.opened {
		return k.err
	}
	k.opened = true
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	k.err = errNotOpened // what later tests get if start does not return
	k.err = k.start(ctx)
	return k.err
}

var errNotOpened = errors.New("tenancytest: a Migrator, or what else Config has called to make the templates, has ended its goroutine, " +
	"as t.FailNow does, or has panicked; let it return an error")

// start opens the server and makes the templates. If it fails, in whatever way,
// the server is closed again.
func (k *Kit) start(ctx context.Context) (err error) {
	server, err := k.cfg.Backend.Open(ctx)
	if err != nil {
		return fmt.Errorf("tenancytest: %w", err)
	}
	defer func() {
		if k.server == nil {
			err = errors.Join(err, server.Close(ctx))
		}
	}()
	if err := k.templates(ctx, server); err != nil {
		return err
	}
	k.server = server
	return nil
}

func (k *Kit) templates(ctx context.Context, s Server) (err error) {
	if k.main, err = newStock(ctx, s, k.cfg, roleMain, k.cfg.main()); err != nil {
		return err
	}
	k.tenant, err = newStock(ctx, s, k.cfg, roleTenant, k.cfg.Migrator)
	return err
}
