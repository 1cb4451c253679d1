package catalog_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func together(t *testing.T, n int, fn func(ctx context.Context, i int) error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := fn(ctx, i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Four sessions, each waiting for a fifth: that of the template.
func TestManyFirstCreates(t *testing.T) {
	pr := newPlace(t, "postgres").start(t)
	together(t, 8, func(ctx context.Context, i int) error {
		_, err := pr.catalog.Create(ctx, fmt.Sprintf("t%d", i), catalog.CreateOptions{})
		return err
	})
}

// Moves from s1 to s2 and from s2 to s1 at once.
func TestCrossMoves(t *testing.T) {
	p := newPlace(t, "postgres")
	p.addServer(t, "s2")
	pr := p.start(t)
	for i := range 12 {
		_, err := pr.catalog.Create(t.Context(), fmt.Sprintf("t%d", i), catalog.CreateOptions{Server: fmt.Sprintf("s%d", i%2+1)})
		require.NoError(t, err)
	}
	together(t, 12, func(ctx context.Context, i int) error {
		return pr.catalog.Move(ctx, fmt.Sprintf("t%d", i), fmt.Sprintf("s%d", 2-i%2))
	})
}

// The new id is taken in the middle: the tenant can't come back under its own.
func TestRenameTaken(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		var other *process
		pr := p.start(t, func(cfg *catalog.Config) {
			catalog.At(cfg, func(task catalog.Task, step string, after bool) {
				if task == catalog.TaskRename && step == "rename" && !after {
					other.create(t, "b")
				}
			})
		})
		other = p.start(t)
		pr.create(t, "a")
		require.ErrorIs(t, pr.catalog.Rename(t.Context(), "a", "b"), catalog.ErrExists)
		require.NoError(t, other.catalog.Rename(t.Context(), "a", "a"), "called off")
		require.NotErrorIs(t, other.in("a").Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
	})
}

type deaf struct{}

func (deaf) Listen(ctx context.Context, _ *sql.DB, _ string, ready func(), _ func(string)) error {
	ready()
	<-ctx.Done()
	return ctx.Err()
}

// A process that hears nothing, on a PgBouncer in transaction mode.
func TestBouncerRename(t *testing.T) {
	p := newPlace(t, "postgres")
	pg := pgtest.Shared(t)
	b := pgtest.StartBouncer(t, pg, pgtest.PoolMode("transaction"))
	u, err := url.Parse(b.DSN("postgres"))
	require.NoError(t, err)
	u.RawQuery = "sslmode=disable&default_query_exec_mode=exec"
	p.Servers["s1"] = target{App: u.String(), Admin: pg.DSN("postgres")}
	pr := p.start(t)
	stale := p.start(t, func(cfg *catalog.Config) { cfg.Listener = deaf{}; cfg.Poll = time.Hour })
	pr.create(t, "a")
	pr.write(t, "a", "one")
	stale.notes(t, "a")
	require.NoError(t, pr.catalog.Rename(t.Context(), "a", "b"))
	pr.create(t, "a") // another tenant
	_ = stale.in("a").Create(&Note{Text: "of the new a"}).Error
	require.Equal(t, []string{"one"}, pr.notes(t, "b"))
}
