package catalog_test

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// Two catalogs share a server. What one finds there while the other makes a
// tenant looks as if it were nobody's: it must not be dropped, not even with
// force.
func TestDropOrphanSparesOtherCatalog(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = 5 * time.Second
		q := p
		if p.Engine == "sqlite" {
			q.Main = filepath.Join(t.TempDir(), "other.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"
		} else {
			pg := pgtest.Shared(t)
			q.Main = pg.DSN(pg.CreateDatabase(t))
		}
		a := p.start(t, func(cfg *catalog.Config) { cfg.Wait = 100 * time.Millisecond })
		made, goOn := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		t.Cleanup(release)
		b := q.start(t, func(cfg *catalog.Config) {
			catalog.At(cfg, func(task catalog.Task, step string, after bool) {
				if task == catalog.TaskCreate && step == "database" && after {
					close(made)
					<-goOn
				}
			})
		})
		created := make(chan error, 1)
		go func() {
			_, err := b.catalog.Create(t.Context(), "bob", catalog.CreateOptions{})
			created <- err
		}()
		<-made
		bob, err := b.catalog.Get(t.Context(), "bob")
		require.NoError(t, err)
		audit, err := a.catalog.Audit(t.Context())
		require.NoError(t, err)
		i := slices.IndexFunc(audit.Orphans, func(o catalog.Orphan) bool { return o.Name == bob.Database })
		require.GreaterOrEqual(t, i, 0, "%+v", audit)
		orphan := audit.Orphans[i]
		require.False(t, orphan.Ours)
		require.Error(t, a.catalog.DropOrphan(t.Context(), orphan, true), "it is being made")
		release()
		require.NoError(t, <-created)
		b.write(t, "bob", "precious")
		require.ErrorIs(t, a.catalog.DropOrphan(t.Context(), orphan, true), catalog.ErrForeign)
		b.plugin.Evict("bob")
		require.Equal(t, []string{"precious"}, b.notes(t, "bob"))
	})
}
