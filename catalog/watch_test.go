package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// hearing says when a Listener hears.
type hearing struct {
	catalog.Listener
	hears chan struct{}
}

func (h hearing) Listen(ctx context.Context, main *sql.DB, channel string, ready func(), heard func(string)) error {
	return h.Listener.Listen(ctx, main, channel, func() {
		ready()
		select {
		case h.hears <- struct{}{}:
		default:
		}
	}, heard)
}

// When nobody watches any more, an answer must not be remembered for longer
// than Config.Poll.
func TestNothingRememberedAfterWatch(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	hears := make(chan struct{}, 1)
	a := p.start(t)
	b := p.start(t, func(cfg *catalog.Config) {
		cfg.Listener = hearing{cfg.Servers["s1"].(catalog.Listener), hears}
	})
	a.create(t, "acme")
	<-hears
	_, err := b.catalog.Resolve(t.Context(), "acme")
	require.NoError(t, err)
	require.NoError(t, b.plugin.Close(t.Context()))
	_, err = b.catalog.Resolve(t.Context(), "acme")
	require.NoError(t, err)
	require.NoError(t, a.catalog.Suspend(t.Context(), "acme", catalog.SuspendOptions{Drain: -1}))
	require.Eventually(t, func() bool {
		_, err := b.catalog.Resolve(t.Context(), "acme")
		return errors.Is(err, tenancy.ErrTenantSuspended)
	}, 10*time.Second, 5*time.Millisecond)
}
