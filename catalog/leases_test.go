package catalog_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// stuck is a writer that takes a dump's first bytes and then nothing more,
// until it is let go.
type stuck struct {
	begun, until   chan struct{}
	first, release func()
}

func newStuck(t *testing.T) *stuck {
	s := &stuck{begun: make(chan struct{}), until: make(chan struct{})}
	s.first = sync.OnceFunc(func() { close(s.begun) })
	s.release = sync.OnceFunc(func() { close(s.until) })
	t.Cleanup(s.release)
	return s
}

func (s *stuck) Write(b []byte) (int, error) {
	s.first()
	<-s.until
	return len(b), nil
}

var _ io.Writer = (*stuck)(nil)

// A long dump must not take the tenant out of service: who wants its database
// for himself is told so, and nothing has changed.
func TestDumpKeepsTenantInService(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = 5 * time.Second
		p.moveTarget(t)
		pr := p.startOn(t, "s1")
		other := p.start(t, func(cfg *catalog.Config) { cfg.Wait = 100 * time.Millisecond })
		pr.create(t, "acme")
		w := newStuck(t)
		dumped := make(chan error, 1)
		go func() { dumped <- pr.catalog.Dump(t.Context(), "acme", w) }()
		<-w.begun
		for name, call := range map[string]func() error{
			"suspend": func() error {
				return other.catalog.Suspend(t.Context(), "acme", catalog.SuspendOptions{Drain: -1})
			},
			"rename": func() error { return other.catalog.Rename(t.Context(), "acme", "new") },
			"move":   func() error { return other.catalog.Move(t.Context(), "acme", "s2") },
			"remove": func() error {
				_, err := other.catalog.Remove(t.Context(), "acme", catalog.RemoveOptions{Drain: -1})
				return err
			},
		} {
			require.ErrorIs(t, call(), catalog.ErrBusy, name)
			row, err := other.catalog.Get(t.Context(), "acme")
			require.NoError(t, err)
			require.Equal(t, catalog.Active, row.State, name)
			require.Empty(t, row.Task, name)
			require.Empty(t, other.notes(t, "acme"), name)
		}
		w.release()
		require.NoError(t, <-dumped)
		require.NoError(t, other.catalog.Suspend(t.Context(), "acme", catalog.SuspendOptions{Drain: -1}))
	})
}

// One tenant whose database can't be had must not keep Resume from the others.
func TestResumePassesOneThatWaits(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	p.Lease = 5 * time.Second
	pr := p.start(t)
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		pr.create(t, id)
	}
	var first string // as Resume comes to them
	for row, err := range pr.catalog.List(t.Context(), catalog.Filter{}) {
		require.NoError(t, err)
		first = row.ID
		break
	}
	w := newStuck(t)
	dumped, resumed := make(chan error, 1), make(chan catalog.Resumed, 1)
	go func() { dumped <- pr.catalog.Dump(t.Context(), first, w) }()
	<-w.begun
	pr.edit(t, "UPDATE tenancy_tenants SET state = 'suspended', task = 'unsuspend', generation = generation + 1")
	go func() {
		r, _ := pr.catalog.Resume(t.Context())
		resumed <- r
	}()
	for _, id := range ids {
		if id != first {
			require.Eventually(t, func() bool {
				row, err := pr.catalog.Get(t.Context(), id)
				return err == nil && row.State == catalog.Active
			}, 10*time.Second, 5*time.Millisecond, id)
		}
	}
	require.Empty(t, resumed, "it waits for the dump")
	w.release()
	require.NoError(t, <-dumped)
	require.Len(t, (<-resumed).Finished, len(ids))
	pr.inOrder(t)
}

// Two operators move one tenant, and a third tidies up: the copy that one of
// them makes must never be dropped or replaced by the others.
func TestTwoMovesLoseNothing(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = 5 * time.Second
		p.moveTarget(t)
		p.Servers["s3"] = p.Servers["s2"]
		copied, goOn := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		t.Cleanup(release)
		first := p.start(t, func(cfg *catalog.Config) {
			catalog.At(cfg, func(task catalog.Task, step string, after bool) {
				if task == catalog.TaskMove && step == "copy" && after {
					close(copied)
					<-goOn
				}
			})
		})
		second := p.start(t, func(cfg *catalog.Config) { cfg.Wait = 100 * time.Millisecond })
		_, err := first.catalog.Create(t.Context(), "acme", catalog.CreateOptions{Server: "s1"})
		require.NoError(t, err)
		first.write(t, "acme", "precious")

		ctx, cancel := context.WithCancel(t.Context())
		failing := p.start(t, func(cfg *catalog.Config) {
			catalog.At(cfg, func(task catalog.Task, step string, after bool) {
				if task == catalog.TaskMove && step == "copy" && !after {
					cancel()
				}
			})
		})
		require.Error(t, failing.catalog.Move(ctx, "acme", "s2"))
		require.ErrorIs(t, second.catalog.Move(t.Context(), "acme", "s3"), catalog.ErrUnfinished)

		moved := make(chan catalog.Resumed, 1)
		go func() {
			r, _ := first.catalog.Resume(t.Context())
			moved <- r
		}()
		<-copied
		require.ErrorIs(t, second.catalog.Move(t.Context(), "acme", "s3"), catalog.ErrBusy)
		r, err := second.catalog.Resume(t.Context())
		require.NoError(t, err)
		require.Empty(t, r.Finished)
		require.Len(t, r.Busy, 1)
		release()
		require.Len(t, (<-moved).Finished, 1)
		second.resume(t)
		row, err := second.catalog.Get(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, "s2", row.Server)
		require.Equal(t, []string{"precious"}, first.notes(t, "acme"))
	})
}

// The database that a tenant moves away from must not be dropped before the
// tenant is back in service, by nobody.
func TestMoveKeepsOldUntilBack(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = 5 * time.Second
		p.moveTarget(t)
		other := p.start(t)
		var resumed error
		var old string
		there := false
		pr := p.start(t, func(cfg *catalog.Config) {
			catalog.At(cfg, func(task catalog.Task, step string, after bool) {
				if task == catalog.TaskMove && step == "switch" && after {
					_, resumed = other.catalog.Resume(context.Background())
					there = p.holds(t, "s1", old)
				}
			})
		})
		row, err := pr.catalog.Create(t.Context(), "acme", catalog.CreateOptions{Server: "s1"})
		require.NoError(t, err)
		old = row.Database
		require.NoError(t, pr.catalog.Move(t.Context(), "acme", "s2"))
		require.NoError(t, resumed)
		require.True(t, there)
		require.False(t, p.holds(t, "s1", old))
		pr.inOrder(t)
	})
}

// A rename of a tenant that is not there must not go on with one of another
// tenant, which was left before or after that got its new id.
func TestRenameOfNobody(t *testing.T) {
	for _, died := range []string{"fence", "rename"} {
		t.Run(died, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "sqlite")
			ctx, cancel := context.WithCancel(t.Context())
			pr := p.start(t)
			dying := p.start(t, func(cfg *catalog.Config) {
				catalog.At(cfg, func(task catalog.Task, step string, after bool) {
					if task == catalog.TaskRename && step == died && after {
						cancel()
					}
				})
			})
			pr.create(t, "b")
			require.Error(t, dying.catalog.Rename(ctx, "b", "c"))
			for _, newID := range []string{"b", "c"} {
				err := pr.catalog.Rename(t.Context(), "nobody", newID)
				require.ErrorIs(t, err, tenancy.ErrTenantNotFound, newID)
			}
			require.NoError(t, pr.catalog.Rename(t.Context(), "b", "c"))
			pr.write(t, "c", "one")
			pr.inOrder(t)
		})
	}
}

// One row that somebody has edited by hand must not stop the work on others.
func TestEditedRow(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		pr.createAll(t, "bad", "good")
		pr.edit(t, "UPDATE tenancy_tenants SET state = 'suspended', task = 'unsuspend', generation = generation + 1")
		pr.edit(t, `UPDATE tenancy_tenants SET labels = '{"seats": 5}', plan = 'nonsense' WHERE id = 'bad'`)
		var ids []string
		for row, err := range pr.catalog.List(t.Context(), catalog.Filter{}) {
			require.NoError(t, err)
			ids = append(ids, row.ID)
			if row.ID == "bad" {
				require.Equal(t, map[string]string{"seats": "5"}, row.Labels)
			}
		}
		require.ElementsMatch(t, []string{"bad", "good"}, ids)
		_, err := pr.catalog.Audit(t.Context())
		require.NoError(t, err)
		r, err := pr.catalog.Resume(t.Context())
		require.NoError(t, err)
		require.Len(t, r.Finished, 1)
		require.Equal(t, "good", r.Finished[0].ID)
		require.Len(t, r.Failed, 1)
		require.ErrorContains(t, r.Failed[0].Err, "column plan")
		pr.write(t, "good", "one")
	})
}

// edit changes rows around the catalog.
func (pr *process) edit(t *testing.T, query string) {
	t.Helper()
	main, err := pr.db.DB()
	require.NoError(t, err)
	_, err = main.Exec(query)
	require.NoError(t, err)
}
