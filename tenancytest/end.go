package tenancytest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"gorm.io/gorm"
)

// endedError is what a statement gets that comes after its test.
type endedError struct{ test string }

func (e *endedError) Error() string {
	return fmt.Sprintf("tenancytest: test %s has ended, and its databases are gone: "+
		"let it wait for the goroutines that it has started", e.test)
}

// watchEnd makes statements after the test's end say so. The plugin, which is
// closed then, refuses them too, but can't name the test.
func (e *Env) watchEnd() error {
	check := func(db *gorm.DB) {
		if ended := e.ended.Load(); ended != nil {
			_ = db.AddError(ended)
		}
	}
	const name = "tenancytest:ended"
	c := e.DB.Callback()
	for _, register := range []func(string, func(*gorm.DB)) error{
		c.Create().Before("*").Register, c.Query().Before("*").Register, c.Update().Before("*").Register,
		c.Delete().Before("*").Register, c.Row().Before("*").Register, c.Raw().Before("*").Register,
	} {
		if err := register(name, check); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the Env, also one that was opened half-way.
func (e *Env) finish() {
	e.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	ended := &endedError{e.tb.Name()}
	e.adding.Lock() // no tenant comes after this
	e.ended.Store(ended)
	e.mu.Lock()
	places := e.places()
	e.mu.Unlock()
	e.adding.Unlock()

	// Sandboxes first: they know of transactions that are still open, which the
	// ctx ends.
	for _, p := range places {
		if p.end(ctx); p.bad != nil {
			e.tb.Errorf("tenancytest: %s: ending its sandbox: %v", p.what, p.bad)
		}
	}
	e.end(ended)
	e.close()
	failed, sandboxes := e.tb.Failed(), false
	for _, p := range places {
		sandboxes = sandboxes || p.sandbox != nil
		if kept := failed && p.sandbox == nil && e.keep(ctx, p); !kept {
			p.stock.giveBack(p)
		}
	}
	if failed && sandboxes {
		e.tb.Logf("tenancytest: sandboxes are rolled back; to keep their databases, run it again with %s=1, or use Env.Clone", KeepEnv)
	}
}

// places returns all databases of the test.
func (e *Env) places() (all []*place) {
	if e.main != nil {
		all = append(all, e.main)
	}
	for _, id := range slices.Sorted(maps.Keys(e.tenants)) {
		all = append(all, e.tenants[id])
	}
	return all
}

// close closes all connections.
func (e *Env) close() {
	e.tb.Helper()
	if e.Plugin != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if err := e.Plugin.Close(ctx); err != nil {
			e.tb.Errorf("tenancytest: what the test has begun goes on after its end: %v", err)
		}
	}
	if e.pool != nil {
		if err := e.pool.Close(); err != nil {
			e.tb.Errorf("tenancytest: closing the main database: %v", err)
		}
	}
}

// keep keeps p's database for whoever looks into the failed test, and reports
// whether it could.
func (e *Env) keep(ctx context.Context, p *place) bool {
	e.tb.Helper()
	how, err := p.Keep(ctx, e.tb.Name())
	if err != nil {
		e.tb.Logf("tenancytest: %s can't be kept: %v", p.what, err)
		return false
	}
	e.tb.Logf("tenancytest: %s: %s", p.what, how)
	return true
}
