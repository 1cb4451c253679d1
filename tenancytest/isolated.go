package tenancytest

import (
	"context"
	"database/sql"
	"fmt"
	"io"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// IsolatedOption changes what [RequireIsolated] does.
type IsolatedOption func(*isolated)

// Seed fills the database of a tenant, before anything runs. It is called for
// each of the two, with a ctx of the tenant (see [tenant.ID]) and Env.DB in it.
// It should give each tenant the same rows with the same keys, and texts of its
// own in them: a cache by key that forgets the tenant is found only by a key
// that both have.
//
//	tenancytest.Seed(func(ctx context.Context, db *gorm.DB) error {
//		id, _ := tenant.ID(ctx)
//		return db.Create(&Order{Title: "order of " + id}).Error
//	})
func Seed(f func(ctx context.Context, db *gorm.DB) error) IsolatedOption {
	return func(i *isolated) { i.seed = f }
}

// RequireIsolated fails the test if the handler lets anything pass from one
// tenant to another. It makes two tenants, each with a database of its own (as
// [Env.Clone] does), seeds them ([Seed] is needed, unless migrations make texts
// that differ), and calls the handler many times as the one and as the other:
//
//   - one after the other;
//   - with a call for the one in the middle of a call for the other, paused
//     before each of its first statements and writes;
//   - for both at the same time.
//
// The handler leaks if
//
//   - what it writes to w, or its error, holds a text that only the other
//     tenant's database had before the first call, as it is or as it is spelled
//     in JSON, HTML or URLs;
//   - a row of the other tenant changes, comes or goes, or a tenant's database
//     gets such a text;
//   - a statement reaches the other tenant's database, whatever led it there.
//
// Databases are read around the plugin. The first leak ends the test, with all
// that it was seen by.
//
// The handler must succeed in the first call for each tenant, and run a
// statement in the tenant's database, or it would prove nothing. When it
// returns, its work must be done: what its goroutines do later would be taken
// for another call's. A later error, a unique value that is there by then for
// instance, is looked into for leaks, and otherwise no failure. For an
// http.Handler see [HTTP].
//
// What it can't see: leaks by numbers, times and texts of less than 5 bytes;
// texts that the handler itself has made, in its output; texts that are encoded
// in another way, compressed, cut or hashed; what goes elsewhere than to w, to
// the main database, a log or a queue; tables that are not in the current schema; caches that need
// more than a few calls or some minutes; ways through the code that the handler
// does not take. While both tenants run at once, a statement is known by its
// ctx: one whose ctx does not come from the handler's is judged only in calls
// one after the other.
func RequireIsolated(t TB, env *Env, handler func(ctx context.Context, w io.Writer) error, opts ...IsolatedOption) {
	t.Helper()
	i := &isolated{env: env, handler: handler, ledger: &ledger{}}
	for _, opt := range opts {
		opt(i)
	}
	defer i.close()
	if err := i.prepare(); err != nil {
		t.Fatalf("tenancytest: RequireIsolated: %v", err)
		return
	}
	for _, phase := range []func() error{i.inTurn, i.interleaved, i.concurrent} {
		if err := phase(); err != nil {
			t.Fatalf("tenancytest: RequireIsolated: %v", err)
			return
		}
		if len(i.leaks) > 0 {
			t.Fatalf("tenancytest: not isolated:\n%s", i.report())
			return
		}
	}
}

// isolated is one call of RequireIsolated.
type isolated struct {
	env     *Env
	handler func(context.Context, io.Writer) error
	seed    func(context.Context, *gorm.DB) error
	ledger  *ledger
	sides   [2]*side
	leaks   []string
}

// side is one of the two tenants.
type side struct {
	id   string
	ctx  context.Context
	pool *sql.DB  // around the plugin, and the ledger
	raw  *gorm.DB // on pool
	now  *snapshot
	// secrets are the texts that only this one has before the first call. What
	// calls make is none: a constant would be one until the other tenant's call
	// has made it too.
	secrets []canary
	last    int // steps of the latest call
}

func (i *isolated) other(s *side) *side {
	if s == i.sides[0] {
		return i.sides[1]
	}
	return i.sides[0]
}

// prepare makes the tenants, and checks that they can be told apart.
func (i *isolated) prepare() error {
	n := i.env.isolated.Add(1)
	for at, letter := range []string{"a", "b"} {
		s := &side{id: fmt.Sprintf("isolated-%d%s", n, letter)}
		i.sides[at] = s
		if err := i.env.add(s.id, true, i.ledger); err != nil {
			return fmt.Errorf("tenant %s: %w", s.id, err)
		}
		s.ctx = tenant.Ctx(i.env.ctx, s.id)
		c, err := i.env.kit.server.Engine().Connector(i.env.tenant(s.id).DSN())
		if err != nil {
			return err
		}
		s.pool = sql.OpenDB(c)
		if s.raw, err = gorm.Open(i.env.kit.server.Dialector(s.pool), &gorm.Config{Logger: logger.Discard}); err != nil {
			return err
		}
		if i.seed != nil {
			if err := i.seed(s.ctx, i.env.DB.WithContext(s.ctx)); err != nil {
				return fmt.Errorf("seeding %s: %w", s.id, err)
			}
		}
	}
	if err := i.look(i.sides[:]...); err != nil {
		return err
	}
	for _, s := range i.sides {
		if s.secrets = s.now.canaries(s.id, i.other(s).now); len(s.secrets) == 0 {
			return fmt.Errorf("the database of %s has no text that the other one's has not, so no leak could be seen: "+
				"seed each tenant with a text of its own, %d bytes long at least, by tenancytest.Seed", s.id, minCanary)
		}
	}
	i.ledger.take()
	return nil
}

func (i *isolated) close() {
	for _, s := range i.sides {
		if s != nil && s.pool != nil {
			_ = s.pool.Close()
		}
	}
}

// look reads databases anew.
func (i *isolated) look(sides ...*side) error {
	ctx, cancel := context.WithTimeout(i.env.ctx, callTimeout)
	defer cancel()
	for _, s := range sides {
		now, err := takeSnapshot(ctx, s.raw)
		if err != nil {
			return fmt.Errorf("reading the database of %s: %w", s.id, err)
		}
		s.now = now
	}
	return nil
}
