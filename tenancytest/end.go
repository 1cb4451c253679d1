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
	ended := &endedError{e.tb.Name()}
	e.ended.Store(ended)
	e.end(ended) // also ends transactions and rows that are still open
	e.close()

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.main != nil {
		e.release(ctx, e.kit.main, e.main, "the main database")
	}
	sandboxes := e.main != nil && e.main.sandbox != nil
	for _, id := range slices.Sorted(maps.Keys(e.tenants)) {
		sandboxes = sandboxes || e.tenants[id].sandbox != nil
		e.release(ctx, e.kit.tenant, e.tenants[id], "tenant "+id)
	}
	if sandboxes && e.tb.Failed() {
		e.tb.Logf("tenancytest: sandboxes are rolled back; to keep their databases, run it again with %s=1, or use Env.Clone", KeepEnv)
	}
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

// release gives p back, or keeps it for whoever looks into a failed test.
func (e *Env) release(ctx context.Context, s *stock, p *place, what string) {
	e.tb.Helper()
	if e.tb.Failed() && p.sandbox == nil {
		how, err := p.Keep(ctx, e.tb.Name())
		if err == nil {
			e.tb.Logf("tenancytest: %s: %s", what, how)
			return
		}
		e.tb.Logf("tenancytest: %s can't be kept: %v", what, err)
	}
	if err := s.giveBack(ctx, p); err != nil {
		e.tb.Errorf("tenancytest: %s: %v", what, err)
	}
}
