// Package backendtest has the tests that every backend of tenancytest must
// pass.
package backendtest

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorm-tenancy/tenancy/tenancytest"
)

// Table fills a template: it makes the table t.
func Table(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "CREATE TABLE t (id int)")
	return err
}

// TemplateRace has several runs, which open begins on one server, ask for a
// template at once: one makes it, and all can copy it.
func TemplateRace(t *testing.T, open func() tenancytest.Server) {
	t.Helper()
	var built atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		s := open()
		for range 3 {
			wg.Go(func() {
				name, err := s.Template(t.Context(), "k", true, func(ctx context.Context, db *sql.DB) error {
					built.Add(1)
					return Table(ctx, db)
				})
				if err == nil {
					_, err = s.Clone(t.Context(), name)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := built.Load(); n != 1 {
		t.Errorf("the template was made %d times", n)
	}
}
