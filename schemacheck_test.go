package tenancy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// bubble has tenants whose databases do nothing, and whose schemas have
// versions.
type bubble struct {
	*versions
	db     *gorm.DB
	plugin *tenancy.Plugin
	news   chan string // what Watch tells, where the Resolver is hearing
}

type hearing struct {
	*versions
	news chan string
}

func (h hearing) Watch(ctx context.Context, changed func(string)) error {
	for {
		select {
		case id := <-h.news:
			changed(id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func inVersions(t *testing.T, of map[string]int64, config func(b *bubble, c *tenancy.Config), test func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{versions: newVersions(of), news: make(chan string)}
		b.where = func(_ context.Context, id string) (tenancy.Database, error) {
			return tenancy.Database{Connector: &idle{id}}, nil
		}
		cfg := tenancy.Config{Resolver: b.versions, Observer: b.versions}
		config(b, &cfg)
		b.db, b.plugin = bubbleDB(t, cfg)
		test(t, b)
	})
}

// use is a statement of the tenant.
func (b *bubble) use(ctx context.Context, id string) error {
	return tenancy.For(b.db, id).WithContext(ctx).Exec("x").Error
}

// later is use in a goroutine.
func (b *bubble) later(ctx context.Context, id string) <-chan error {
	out := make(chan error, 1)
	go func() { out <- b.use(ctx, id) }()
	return out
}

func atLeast5(_ *bubble, c *tenancy.Config) { c.Schema.Min = 5 }

// A pool does not outlive the schema that it was opened on.
func TestSchemaChangeRetiresThePool(t *testing.T) {
	inVersions(t, map[string]int64{"a": 5, "b": 5}, atLeast5, func(t *testing.T, b *bubble) {
		recheck := func() {
			t.Helper()
			time.Sleep(2 * time.Minute)
			require.NoError(t, b.use(t.Context(), "a"))
			require.NoError(t, b.use(t.Context(), "b"))
			synctest.Wait()
		}
		recheck()
		recheck()
		require.Empty(t, b.seen(tenancy.EventEvicted, "a"))
		b.set("a", 6)
		recheck()
		evicted := b.seen(tenancy.EventEvicted, "a")
		require.Len(t, evicted, 1)
		require.Equal(t, tenancy.CauseChanged, evicted[0].Cause)
		require.NoError(t, b.use(t.Context(), "a"))
		b.set("a", 4) // a dump was restored
		recheck()
		require.Len(t, b.seen(tenancy.EventEvicted, "a"), 2)
		require.ErrorIs(t, b.use(t.Context(), "a"), tenancy.ErrTenantBehind)
		require.Empty(t, b.seen(tenancy.EventEvicted, "b"))
	})
}

// refused asserts that a hundred statements are, for one question.
func (b *bubble) refused(t *testing.T) {
	t.Helper()
	before := b.count(&b.asked, "a")
	for range 100 {
		require.ErrorIs(t, b.use(t.Context(), "a"), tenancy.ErrTenantBehind)
	}
	require.Equal(t, before+1, b.count(&b.asked, "a"))
}

// Who is refused asks the resolver once a second at most, and is served soon
// after the migration, or at once with news of it.
func TestSchemaRefusalIsRememberedForAMoment(t *testing.T) {
	inVersions(t, map[string]int64{"a": 4}, atLeast5, func(t *testing.T, b *bubble) {
		b.refused(t)
		require.Equal(t, 1, b.count(&b.forgot, "a"), "it may remember, and hears no news")
		b.set("a", 5)
		time.Sleep(time.Second)
		require.NoError(t, b.use(t.Context(), "a"))

		b.set("a", 4)
		b.plugin.Evict("a")
		b.refused(t)
		b.set("a", 5)
		b.plugin.Evict("a")
		require.NoError(t, b.use(t.Context(), "a"))
	})
	inVersions(t, map[string]int64{"a": 4}, func(b *bubble, c *tenancy.Config) {
		c.Schema.Min = 5
		c.Resolver = tenancy.Chain(hearing{b.versions, b.news})
	}, func(t *testing.T, b *bubble) {
		b.refused(t)
		require.Zero(t, b.count(&b.forgot, "a"), "it is told of migrations")
		b.set("a", 5)
		b.news <- "a"
		synctest.Wait()
		require.NoError(t, b.use(t.Context(), "a"))
	})
}

// Many first statements cause one migration, and all of them are served, from
// connections that were made after it. News of the migration may come at once.
func TestSchemaMigrate(t *testing.T) {
	for _, by := range []string{"resolver", "current", "news"} {
		t.Run(by, func(t *testing.T) {
			var v *versions
			var migrations atomic.Int32
			ddl := func(ctx context.Context, e *env, id string) (err error) {
				migrations.Add(1)
				if tenant.Validate(id) != nil || e.db.WithContext(ctx).First(&Plan{}).Error != nil {
					return errors.New("the ctx does not mean the main database")
				}
				pool, err := e.plugin.OpenDB(ctx, id)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, pool.Close()) }()
				if _, err := pool.ExecContext(ctx, "ALTER TABLE tags ADD COLUMN color TEXT DEFAULT 'of "+id+"'; PRAGMA user_version = 5"); err != nil {
					return err
				}
				if by != "current" {
					v.set(id, 5)
				}
				if by == "news" {
					e.plugin.Evict(id)
				}
				return nil
			}
			e, versions := openVersions(t, map[string]int64{}, func(e *env) tenancy.SchemaRange {
				r := tenancy.SchemaRange{Min: 5, Migrate: func(ctx context.Context, id string) error { return ddl(ctx, e, id) }}
				if by == "current" {
					r.Current = userVersion
				}
				return r
			})
			v = versions
			var callers sync.WaitGroup
			errs := make(chan error, 100)
			for i := range cap(errs) {
				id := []string{idA, idB}[i%2]
				callers.Go(func() {
					var color string
					err := e.in(id).Raw("SELECT color FROM tags").Scan(&color).Error
					if err == nil && color != "of "+id {
						err = fmt.Errorf("%s has %q", id, color)
					}
					errs <- err
				})
			}
			callers.Wait()
			close(errs)
			for err := range errs {
				require.NoError(t, err)
			}
			require.EqualValues(t, 2, migrations.Load(), "one for each tenant")
			for _, id := range []string{idA, idB} {
				require.Len(t, v.seen(tenancy.EventMigrated, id), 1)
				require.Equal(t, 1, v.count(&v.forgot, id), "it may have remembered")
				require.Equal(t, []string{"of " + id}, e.strings(id, "SELECT color FROM tags"))
			}
			require.Equal(t, []string{"tag of main"}, e.dump(mainName)["tags"])
			for _, call := range e.calls.list() {
				require.False(t, strings.HasPrefix(call, "main: ") && strings.Contains(call, "ALTER"), call)
			}
		})
	}
}
