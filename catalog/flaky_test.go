package catalog_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// flaky is a server that fails when it is told to.
type flaky struct {
	catalog.Server
	down, noRename atomic.Bool
}

var errFlaky = errors.New("out of order")

func (f *flaky) Session(ctx context.Context, name string, steal bool) (catalog.Session, error) {
	if f.down.Load() {
		return nil, errFlaky
	}
	s, err := f.Server.Session(ctx, name, steal)
	if err != nil {
		return nil, err
	}
	return flakySession{s, f}, nil
}

type flakySession struct {
	catalog.Session
	f *flaky
}

func (s flakySession) Rename(ctx context.Context, to string) error {
	if s.f.noRename.Load() {
		return errFlaky
	}
	return s.Session.Rename(ctx, to)
}

func withFlaky(server string, f *flaky) func(*catalog.Config) {
	return func(cfg *catalog.Config) {
		f.Server = cfg.Servers[server]
		cfg.Servers[server] = f
	}
}

// A rename that fails after the row has its new id has no way but on: the name
// of the database is never lost.
func TestRenameIsNotLost(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		f := &flaky{}
		pr := p.start(t, withFlaky("s1", f))
		ctx := t.Context()
		pr.create(t, "x")
		pr.write(t, "x", "precious")
		f.noRename.Store(true)
		require.ErrorIs(t, pr.catalog.Rename(ctx, "x", "y"), errFlaky)
		require.ErrorIs(t, pr.catalog.Rename(ctx, "y", "y"), errFlaky, "it goes on")
		require.ErrorIs(t, pr.catalog.Rename(ctx, "y", "z"), catalog.ErrUnfinished)
		audit, err := pr.catalog.Audit(ctx)
		require.NoError(t, err)
		for _, o := range audit.Orphans {
			require.False(t, o.Ours, "%+v", o)
		}
		f.noRename.Store(false)
		require.NoError(t, pr.catalog.Rename(ctx, "x", "y"))
		require.Equal(t, []string{"precious"}, pr.notes(t, "y"))
		pr.inOrder(t)
	})
}

// A move to a server that has died meanwhile is called off without it.
func TestMoveIsCalledOff(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, engine)
			p.moveTarget(t)
			f := &flaky{}
			die := false
			pr := p.start(t, withFlaky("s2", f), func(cfg *catalog.Config) {
				catalog.At(cfg, func(task catalog.Task, step string, after bool) {
					if die && task == catalog.TaskMove && step == "copy" && !after {
						f.down.Store(true)
					}
				})
			})
			ctx := t.Context()
			_, err := pr.catalog.Create(ctx, "acme", catalog.CreateOptions{Server: "s1"})
			require.NoError(t, err)
			pr.write(t, "acme", "precious")
			// One that is dead from the beginning changes nothing.
			f.down.Store(true)
			require.ErrorIs(t, pr.catalog.Move(ctx, "acme", "s2"), errFlaky)
			require.Equal(t, []string{"precious"}, pr.notes(t, "acme"))
			f.down.Store(false)
			die = true
			require.ErrorIs(t, pr.catalog.Move(ctx, "acme", "s2"), errFlaky)
			require.ErrorIs(t, pr.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
			require.NoError(t, pr.catalog.Move(ctx, "acme", "s1"))
			require.Equal(t, []string{"precious"}, pr.notes(t, "acme"))
			die = false
			f.down.Store(false)
			require.Empty(t, pr.resume(t).Failed)
			pr.inOrder(t)
		})
	}
}

// A hook that panics leaves neither a session nor a lease behind.
func TestHookPanics(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		panics := true
		pr := p.start(t, func(cfg *catalog.Config) {
			cfg.Seed = func(context.Context, *gorm.DB, catalog.Tenant) error {
				if panics {
					panic("seed")
				}
				return nil
			}
		})
		for range 6 { // more than there are connections for administration
			_, err := pr.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
			require.ErrorContains(t, err, "panicked: seed")
		}
		panics = false
		pr.create(t, "acme")
		pr.inOrder(t)
	})
}
