package catalog_test

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// A creation that takes longer than its first users wait must not begin anew
// with each of them: it goes on.
func TestFirstUseGoesOn(t *testing.T) {
	t.Parallel()
	var began atomic.Int32
	started, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	p := newPlace(t, "sqlite")
	p.Lease = 5 * time.Second
	pr := p.start(t, func(cfg *catalog.Config) {
		cfg.Migrator = migrate.Func(1, func(ctx context.Context, _ *sql.DB) error {
			if began.Add(1) == 1 {
				close(started)
			}
			select {
			case <-goOn:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	t.Cleanup(release)
	first := pr.catalog.OnFirstUse(func(context.Context, string) (catalog.CreateOptions, error) {
		return catalog.CreateOptions{}, nil
	})
	defer func() { require.NoError(t, first.Close()) }()
	for i := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		if i == 0 {
			go func() {
				<-started
				cancel()
			}()
		} else {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		}
		_, err := first.Resolve(ctx, "acme")
		cancel()
		require.ErrorIs(t, err, tenancy.ErrUnavailable)
	}
	release()
	d, err := first.Resolve(t.Context(), "acme") // waits for the same one
	require.NoError(t, err)
	require.Equal(t, "s1", d.Server)
	require.EqualValues(t, 1, began.Load())
}
