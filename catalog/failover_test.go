package catalog_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// Where the caller has named the server, it must be that one: for the law, or
// for its neighbours. One that nobody named comes on another when it is down.
func TestNamedServerIsKept(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	down := "postgres://nobody@" + l.Addr().String() + "/postgres?sslmode=disable"
	require.NoError(t, l.Close()) // nobody answers there now
	p.Servers["s2"] = target{App: down, Admin: down}
	pr := p.start(t, func(cfg *catalog.Config) {
		cfg.Placement = func(_ context.Context, servers []catalog.Load) (string, error) {
			return servers[len(servers)-1].Server, nil
		}
	})
	_, err = pr.catalog.Create(t.Context(), "named", catalog.CreateOptions{Server: "s2"})
	require.Error(t, err)
	_, err = pr.catalog.Create(t.Context(), "named", catalog.CreateOptions{})
	require.Error(t, err, "it is named still")
	row, err := pr.catalog.Get(t.Context(), "named")
	require.NoError(t, err)
	require.Equal(t, "s2", row.Server)
	require.Equal(t, catalog.Provisioning, row.State)

	row = pr.create(t, "any")
	require.Equal(t, "s1", row.Server)
}

// A Seed that can't reach somebody says nothing of the tenant's server: the
// tenant must not be made anew on another one.
func TestSeedFailureMovesNobody(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	p.moveTarget(t)
	seeds := 0
	pr := p.start(t, func(cfg *catalog.Config) {
		cfg.Seed = func(context.Context, *gorm.DB, catalog.Tenant) error {
			if seeds++; seeds == 1 {
				return &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("the mail service is down")}
			}
			return nil
		}
	})
	_, err := pr.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
	require.ErrorContains(t, err, "mail service")
	require.Equal(t, 1, seeds)
	pr.create(t, "acme")
	pr.inOrder(t)
}
