package catalog_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Several processes that fill up must not make more than Config.Ready.
func TestReadyOverProcesses(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Ready, p.Lease = 3, 5*time.Second
		var wg sync.WaitGroup
		var all []*process
		errs := make([]error, 4)
		for i := range errs {
			pr := p.start(t)
			all = append(all, pr)
			wg.Go(func() { errs[i] = pr.catalog.FillReady(t.Context()) })
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		require.Len(t, p.there(t), 3)
		all[0].inOrder(t)
	})
}

// One that can't be finished must not keep the others from being made.
func TestReadyPassesOneThatFails(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	p.Ready, p.Lease = 2, 5*time.Second
	pr := p.start(t)
	require.NoError(t, pr.catalog.FillReady(t.Context()))
	// Its database says another generation, as after a wrong restore.
	pr.edit(t, "UPDATE tenancy_tenants SET version = 0, generation = 0 WHERE uid = (SELECT min(uid) FROM tenancy_tenants)")
	require.Error(t, pr.catalog.FillReady(t.Context()), "it is said")
	pr.create(t, "acme")
	require.Error(t, pr.catalog.FillReady(t.Context()))
	require.Equal(t, 2, pr.ready(t))
	pr.create(t, "other")
	require.Error(t, pr.catalog.FillReady(t.Context()))
	require.Equal(t, 2, pr.ready(t))
}

func TestDropReady(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Ready, p.Lease = 3, 5*time.Second
		pr := p.start(t)
		require.NoError(t, pr.catalog.FillReady(t.Context()))
		pr.create(t, "acme")
		require.NoError(t, pr.catalog.FillReady(t.Context()))
		for _, keep := range []int{5, 1, 0} {
			require.NoError(t, pr.catalog.DropReady(t.Context(), "s1", keep))
			require.Equal(t, min(keep, 3), pr.ready(t))
			pr.inOrder(t)
		}
		pr.write(t, "acme", "one") // a tenant's is never dropped
	})
}

// ready is how many ready databases there are on the first server.
func (pr *process) ready(t *testing.T) int {
	t.Helper()
	loads, err := pr.catalog.Loads(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, loads)
	return loads[0].Ready
}
