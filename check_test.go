package tenancy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

func TestCheck(t *testing.T) {
	e := openSQLite(t)
	ctx := context.Background()
	for id, reason := range map[string]error{"": tenancy.ErrNoTenant, "nobody": tenancy.ErrTenantNotFound, "/": tenancy.ErrInvalidTenant} {
		require.ErrorIs(t, e.plugin.Check(ctx, id), reason)
	}
	e.plugin.Evict(idA)
	before := e.plugin.Stats().Conns
	require.NoError(t, e.plugin.Check(ctx, idA))
	require.Equal(t, before, e.plugin.Stats().Conns, "it takes no connection")
	require.True(t, e.plugin.Evict(idA), "the pool is open")
	require.NoError(t, e.plugin.Drain(ctx, idA), "and nothing holds it")
	require.NoError(t, e.plugin.Close(ctx))
	require.ErrorIs(t, e.plugin.Check(ctx, idA), tenancy.ErrClosed)
}
