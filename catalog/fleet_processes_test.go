package catalog_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// A child that migrates says "done" for each tenant, and at last its report.
// With Step "hold" it says "holding" in the middle of each migration, and goes
// on when it is told to.
func init() {
	childWork["migrate"] = func(spec childSpec, in *bufio.Scanner) error {
		s := steps{target: 2}
		if spec.Step == "hold" {
			s.before = func(_ context.Context, tx *sql.Tx, _ int64) error {
				fmt.Println("holding")
				in.Scan()
				return nil
			}
		}
		pr, err := spec.open(withSteps(s))
		if err != nil {
			return err
		}
		defer pr.close() //nolint:errcheck // the process ends
		var mu sync.Mutex
		report, err := pr.catalog.MigrateTenants(context.Background(), migrate.Options{PerServer: 3, OnEvent: func(e migrate.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == migrate.EventDone || e.Kind == migrate.EventLost {
				fmt.Println(e.Kind, e.Result.Tenant)
			}
		}})
		if err != nil {
			return err
		}
		return json.NewEncoder(linePrinter{}).Encode(report)
	}
}

type linePrinter struct{}

func (linePrinter) Write(b []byte) (int, error) { return fmt.Print("report ", string(b)) }

// reportOf reads the report at the end of what a child said.
func reportOf(t *testing.T, said string) (r migrate.Report) {
	t.Helper()
	_, text, ok := strings.Cut(said, "report ")
	require.True(t, ok, "%s", said)
	require.NoError(t, json.Unmarshal([]byte(text), &r))
	return r
}

// TestFleetProcesses: two processes share a run over 200 tenants, and one of
// them is killed.
func TestFleetProcesses(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		const tenants = 200
		p.Lease = 3 * time.Second // the survivor must not lose one under load
		pr := p.start(t, withSteps(steps{target: 1}))
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; i < tenants; i += 4 {
					_, err := pr.catalog.Create(context.Background(), fmt.Sprintf("t%03d", i), catalog.CreateOptions{})
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()

		victim := startChild(t, childSpec{Work: "migrate", place: p})
		require.True(t, strings.HasPrefix(victim.line(t), "done"))
		survivor := startChild(t, childSpec{Work: "migrate", place: p})
		require.True(t, strings.HasPrefix(survivor.line(t), "done"))
		for range 10 {
			victim.line(t)
		}
		require.NoError(t, victim.cmd.Process.Kill())

		said, err := survivor.end(t)
		require.NoError(t, err, said)
		report := reportOf(t, said)
		require.Equal(t, migrate.StatusDone, report.Status)
		require.Equal(t, tenants, report.Done, "of both")
		require.Zero(t, report.UpToDate)
		byBoth := map[string]bool{}
		again := 0
		for _, res := range report.Tenants {
			byBoth[res.Tenant] = true
			require.Equal(t, migrate.StatusDone, res.Status)
			require.EqualValues(t, 1, res.From, "%+v", res)
			require.EqualValues(t, 2, res.To)
			if res.Attempts > 1 {
				again++
			}
		}
		require.Len(t, byBoth, tenants)
		require.LessOrEqual(t, again, 6, "those that the dead one had, or had not written down yet")
		require.NotContains(t, said, string(migrate.EventLost))
		pr.allAt(t, 2)
	})
}

// TestFleetZombie: a process is frozen in the middle of a migration until its
// lease is over and another has done its work, and then goes on.
func TestFleetZombie(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	p.Lease = time.Second
	pr := p.start(t, withSteps(steps{target: 1}))
	row := pr.create(t, "a")
	zombie := startChild(t, childSpec{Work: "migrate", place: p, Step: "hold"})
	require.Equal(t, "holding", zombie.line(t))
	require.NoError(t, zombie.cmd.Process.Signal(syscall.SIGSTOP))

	pr = p.start(t, withSteps(steps{target: 2}))
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.NoError(t, err)
	require.Equal(t, 1, report.Done)
	require.Equal(t, 2, report.Tenants[0].Attempts)
	require.Equal(t, []int64{1, 2}, pr.appliedIn(t, row))
	before, err := pr.catalog.Get(t.Context(), "a")
	require.NoError(t, err)

	require.NoError(t, zombie.cmd.Process.Signal(syscall.SIGCONT))
	_, err = fmt.Fprintln(zombie.in, "go on")
	require.NoError(t, err)
	said, err := zombie.end(t)
	require.NoError(t, err, said)
	require.Contains(t, said, "lost a")
	theirs := reportOf(t, said)
	require.Equal(t, migrate.StatusDone, theirs.Status, "it shows what the successor did")
	require.Equal(t, 1, theirs.Done)
	require.Equal(t, []int64{1, 2}, pr.appliedIn(t, row))
	after, err := pr.catalog.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, before, after, "nothing of it is in the book")
}
