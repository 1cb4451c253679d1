package catalog_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func init() { childWork["crash"] = crashChild }

// crash is one task as the crash tests run it: what is before it, how it is
// called, and how it must end.
type crash struct {
	prepare func(t *testing.T, pr *process)
	call    func(ctx context.Context, pr *process) error
	// resumed checks what is there after Resume finished the task.
	resumed func(t *testing.T, pr *process)
	// unfinished: Resume can't finish it, and says so; the call can.
	unfinished bool
	change     func(p *place)
}

const crashID = "acme"

// crashes has every task of the catalog: TestCrash fails where one is missing.
var crashes = map[catalog.Task]crash{
	catalog.TaskCreate: {
		change: func(p *place) { p.Seeds = true },
		// The template is made before, by another tenant.
		prepare: func(t *testing.T, pr *process) { pr.create(t, "first") },
		call: func(ctx context.Context, pr *process) error {
			_, err := pr.catalog.Create(ctx, crashID, catalog.CreateOptions{})
			return err
		},
		resumed: served("seed of acme"),
	},
	catalog.TaskReady: {
		change:  func(p *place) { p.Ready = 1 },
		prepare: func(*testing.T, *process) {},
		call:    func(ctx context.Context, pr *process) error { return pr.catalog.FillReady(ctx) },
		resumed: func(t *testing.T, pr *process) {
			require.NoError(t, pr.catalog.FillReady(t.Context()))
			require.Len(t, pr.there(t), 1)
			pr.create(t, crashID)
			require.Len(t, pr.there(t), 1)
		},
	},
	catalog.TaskClaim: {
		change:  func(p *place) { p.Ready = 1; p.Seeds = true },
		prepare: func(t *testing.T, pr *process) { require.NoError(t, pr.catalog.FillReady(t.Context())) },
		call: func(ctx context.Context, pr *process) error {
			_, err := pr.catalog.Create(ctx, crashID, catalog.CreateOptions{})
			return err
		},
		resumed: served("seed of acme"),
	},
	catalog.TaskAdopt: {
		prepare: func(t *testing.T, pr *process) {
			kept := pr.create(t, "kept")
			pr.write(t, "kept", "old")
			_, err := pr.catalog.Remove(t.Context(), "kept", catalog.RemoveOptions{KeepDatabase: true})
			require.NoError(t, err)
			pr.Adopt = kept.Database
		},
		call: func(ctx context.Context, pr *process) error {
			_, err := pr.catalog.Adopt(ctx, crashID, catalog.AdoptOptions{
				CreateOptions: catalog.CreateOptions{Server: "s1"}, Database: pr.Adopt})
			return err
		},
		resumed: served("old"),
	},
	catalog.TaskRestore: {
		prepare: func(t *testing.T, pr *process) {
			pr.create(t, "source")
			pr.write(t, "source", "old")
		},
		call: func(ctx context.Context, pr *process) error {
			var dump bytes.Buffer
			if err := pr.catalog.Dump(ctx, "source", &dump); err != nil {
				return err
			}
			_, err := pr.catalog.Restore(ctx, crashID, &dump, catalog.CreateOptions{})
			return err
		},
		resumed:    served("old"),
		unfinished: true,
	},
	catalog.TaskSuspend: {
		prepare: tenantWith("old"),
		call: func(ctx context.Context, pr *process) error {
			return pr.catalog.Suspend(ctx, crashID, catalog.SuspendOptions{})
		},
		resumed: func(t *testing.T, pr *process) {
			require.ErrorIs(t, pr.in(crashID).Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
			require.NoError(t, pr.catalog.Unsuspend(t.Context(), crashID))
			served("old")(t, pr)
		},
	},
	catalog.TaskUnsuspend: {
		prepare: func(t *testing.T, pr *process) {
			tenantWith("old")(t, pr)
			require.NoError(t, pr.catalog.Suspend(t.Context(), crashID, catalog.SuspendOptions{}))
		},
		call:    func(ctx context.Context, pr *process) error { return pr.catalog.Unsuspend(ctx, crashID) },
		resumed: served("old"),
	},
	catalog.TaskRename: {
		prepare: func(t *testing.T, pr *process) {
			pr.create(t, "old-name")
			pr.write(t, "old-name", "old")
		},
		call: func(ctx context.Context, pr *process) error { return pr.catalog.Rename(ctx, "old-name", crashID) },
		resumed: func(t *testing.T, pr *process) {
			require.ErrorIs(t, pr.in("old-name").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
			served("old")(t, pr)
		},
	},
	catalog.TaskMove: {
		prepare: tenantWith("old"),
		call:    func(ctx context.Context, pr *process) error { return pr.catalog.Move(ctx, crashID, "s2") },
		resumed: func(t *testing.T, pr *process) {
			moved, err := pr.catalog.Get(t.Context(), crashID)
			require.NoError(t, err)
			require.Equal(t, "s2", moved.Server)
			served("old")(t, pr)
		},
	},
	catalog.TaskRemove: {
		prepare: tenantWith("old"),
		call: func(ctx context.Context, pr *process) error {
			_, err := pr.catalog.Remove(ctx, crashID, catalog.RemoveOptions{})
			return err
		},
		resumed: func(t *testing.T, pr *process) {
			require.ErrorIs(t, pr.in(crashID).Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
			require.Empty(t, pr.there(t))
			entries, err := os.ReadDir(pr.Backups)
			require.NoError(t, err)
			require.Len(t, entries, 1, "the backup, whole")
			f, err := os.Open(pr.Backups + "/" + entries[0].Name())
			require.NoError(t, err)
			defer f.Close()
			_, err = pr.catalog.Restore(t.Context(), crashID, f, catalog.CreateOptions{})
			require.NoError(t, err)
			served("old")(t, pr)
		},
	},
}

func tenantWith(text string) func(*testing.T, *process) {
	return func(t *testing.T, pr *process) {
		pr.create(t, crashID)
		pr.write(t, crashID, text)
	}
}

func served(texts ...string) func(*testing.T, *process) {
	return func(t *testing.T, pr *process) {
		require.Equal(t, texts, pr.notes(t, crashID))
		row, err := pr.catalog.Get(t.Context(), crashID)
		require.NoError(t, err)
		require.Equal(t, texts, pr.raw(t, row))
		pr.write(t, crashID, "new")
	}
}

// crashChild runs the task and kills itself at the step.
func crashChild(spec childSpec, _ *bufio.Scanner) error {
	pr, err := spec.open(func(cfg *catalog.Config) {
		catalog.At(cfg, func(task catalog.Task, step string, after bool) {
			if string(task) == spec.Task && step == spec.Step && after == spec.After {
				if self, err := os.FindProcess(os.Getpid()); err == nil {
					_ = self.Kill()
				}
				select {} // until it is there
			}
		})
	})
	if err != nil {
		return err
	}
	if err := crashes[catalog.Task(spec.Task)].call(context.Background(), pr); err != nil {
		return err
	}
	return errors.New("the step was never reached")
}

// A process is killed at every step of every task. Resume finishes what it
// left, or Remove cleans it up; no database, row or file is left over or
// missing.
func TestCrash(t *testing.T) {
	steps := catalog.Steps()
	for task := range steps {
		require.Contains(t, crashes, task, "a new task needs a crash test")
	}
	for _, engine := range engines {
		for _, task := range sorted(crashes) {
			points := []string{"begin/after"}
			for _, step := range steps[task] {
				points = append(points, step+"/before")
			}
			points = append(points, steps[task][len(steps[task])-1]+"/after")
			for _, point := range points {
				for _, how := range []string{"resume", "remove"} {
					name := fmt.Sprintf("%s/%s/%s/%s", engine, task, strings.ReplaceAll(point, "/", "_"), how)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						crashAt(t, engine, task, point, how)
					})
				}
			}
		}
	}
}

func crashAt(t *testing.T, engine string, task catalog.Task, point, how string) {
	test := crashes[task]
	p := newPlace(t, engine)
	if test.change != nil {
		test.change(&p)
	}
	if task == catalog.TaskMove {
		p.moveTarget(t)
	}
	pr := p.start(t)
	if task == catalog.TaskMove {
		pr = p.startOn(t, "s1")
	}
	test.prepare(t, pr)
	step, when, _ := strings.Cut(point, "/")
	c := startChild(t, childSpec{Work: "crash", place: pr.place, Task: string(task), Step: step, After: when == "after"})
	said, err := c.end(t)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, said)
	require.Equal(t, "signal: killed", exit.Error(), said)
	pr.forgetLeases(t) // TestLease waits for one to run out

	if how == "remove" {
		for row, err := range pr.catalog.List(t.Context(), catalog.Filter{}) {
			require.NoError(t, err)
			if row.ID != "" {
				served := row.State != catalog.Provisioning && row.State != catalog.Deleting
				removed, err := pr.catalog.Remove(t.Context(), row.ID, catalog.RemoveOptions{})
				require.NoError(t, err)
				if served {
					require.FileExists(t, removed.Backup)
				}
			}
		}
		r := pr.resume(t) // what has no id
		require.Empty(t, r.Failed)
		if task == catalog.TaskAdopt {
			// What was not adopted to the end stays.
			if point != "activate/after" {
				require.Len(t, p.there(t), 1)
				_, err := pr.catalog.Adopt(t.Context(), "again", catalog.AdoptOptions{
					CreateOptions: catalog.CreateOptions{Server: "s1"}, Database: pr.Adopt})
				require.NoError(t, err)
				require.Equal(t, []string{"old"}, pr.notes(t, "again"))
			}
		}
		pr.inOrder(t)
		return
	}
	r := pr.resume(t)
	if test.unfinished && point != "activate/after" {
		require.Len(t, r.Failed, 1)
		require.ErrorContains(t, r.Failed[0].Err, "call Restore again")
		require.NoError(t, test.call(t.Context(), pr))
	} else {
		require.Empty(t, r.Failed)
	}
	pr.inOrder(t)
	test.resumed(t, pr)
	pr.inOrder(t)
}

// moveTarget adds the server that tenants move to. It is in the same cluster
// on PostgreSQL: what differs is the administrator.
func (p *place) moveTarget(t *testing.T) {
	if p.Engine == "sqlite" {
		p.addServer(t, "s2")
		return
	}
	p.Servers["s2"] = pgTarget(t, pgtest.Shared(t))
}

// startOn is start, with new tenants on one server.
func (p place) startOn(t *testing.T, server string) *process {
	return p.start(t, func(cfg *catalog.Config) { cfg.Placement = catalog.Weights(map[string]int{server: 1}) })
}
