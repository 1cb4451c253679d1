package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

const (
	suspendProcesses = 2
	suspendWorkers   = 4                      // of each process
	suspendWarm      = 100 * time.Millisecond // of load, before it is suspended
	suspendPace      = time.Millisecond       // between two reads of a worker
	suspendPatience  = 30 * time.Second
)

// BenchmarkSuspend suspends a tenant that other processes use: 2 processes of 4
// workers, each of which reads every millisecond. "tenancy" is
// Catalog.Suspend; "bare" is what one would do by hand to a database that bare
// sql.DBs use: REVOKE CONNECT, then pg_terminate_backend until
// pg_stat_activity shows nobody. They take turns, each with its own processes
// while those of the other are quiet.
//
// ms is until it returned, with no session of the application left; refused-ms
// until the last process's first refused statement (of the medians of all
// iterations); broken is how many statements failed in another way, in all
// processes for each iteration.
func BenchmarkSuspend(b *testing.B) {
	s := newSite(b)
	cat, _ := s.open(b, func(cfg *catalog.Config) { cfg.Migrator = notes("bigserial PRIMARY KEY") })
	create(b, cat, "t")
	byHand := create(b, cat, "byhand").Database
	admin := connect(b, s.admin)
	defer admin.Close(context.Background()) //nolint:errcheck // the server is ours

	start := func(way string) (all []*child) {
		for range suspendProcesses {
			all = append(all, startChild(b, childSpec{
				Way: way, Main: s.main, App: s.app, Tenant: "t", Database: byHand,
			}))
		}
		return all
	}
	ways := []suspendWay{
		{"tenancy", start("tenancy"),
			func(ctx context.Context) error { return cat.Suspend(ctx, "t", catalog.SuspendOptions{}) },
			func(ctx context.Context) error { return cat.Unsuspend(ctx, "t") }},
		{"bare", start("bare"),
			func(ctx context.Context) error { return suspendByHand(ctx, admin, byHand, s.appRole) },
			func(ctx context.Context) error {
				_, err := admin.Exec(ctx, "GRANT CONNECT ON DATABASE "+pgx.Identifier{byHand}.Sanitize()+" TO "+s.appRole)
				return err
			}},
	}
	figures := make([]suspendFigures, len(ways))
	for i := 0; b.Loop(); i++ {
		for k := range ways {
			w := (i + k) % len(ways)
			ways[w].once(b, &figures[w])
		}
	}
	for i, w := range ways {
		figures[i].report(b, w.name)
	}
	b.ReportMetric(median(figures[0].took)/median(figures[1].took), "of-bare")
	b.ReportMetric(0, "ns/op")
}

type suspendWay struct {
	name               string
	processes          []*child
	suspend, unsuspend func(context.Context) error
}

type suspendFigures struct {
	took, refused []time.Duration
	broken        int
}

// median is in milliseconds.
func median(all []time.Duration) float64 {
	all = slices.Sorted(slices.Values(all))
	return float64(all[len(all)/2].Nanoseconds()) / 1e6
}

func (f *suspendFigures) report(b *testing.B, name string) {
	b.ReportMetric(median(f.took), name+"-ms")
	b.ReportMetric(median(f.refused), name+"-refused-ms")
	b.ReportMetric(float64(f.broken)/float64(len(f.took)), name+"-broken")
}

// once puts the tenant under load, suspends it, and puts it back.
func (w *suspendWay) once(b *testing.B, f *suspendFigures) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), suspendPatience)
	defer cancel()
	for _, c := range w.processes {
		c.say(b, "load")
	}
	for _, c := range w.processes {
		c.hear(b, "loaded")
	}
	time.Sleep(suspendWarm)
	began := time.Now()
	if err := w.suspend(ctx); err != nil {
		b.Fatalf("%s: %v", w.name, err)
	}
	f.took = append(f.took, time.Since(began))
	var last time.Duration
	for _, c := range w.processes {
		var at int64
		if _, err := fmt.Sscan(c.hear(b, "refused "), &at); err != nil {
			b.Fatal(err)
		}
		last = max(last, time.Unix(0, at).Sub(began)) // one machine, one clock
	}
	f.refused = append(f.refused, last)
	for _, c := range w.processes {
		c.say(b, "stop")
		var broken int
		if _, err := fmt.Sscan(c.hear(b, "stopped "), &broken); err != nil {
			b.Fatal(err)
		}
		f.broken += broken
	}
	if err := w.unsuspend(ctx); err != nil {
		b.Fatalf("%s: %v", w.name, err)
	}
}

// suspendByHand is what a runbook says.
func suspendByHand(ctx context.Context, admin *pgx.Conn, database, role string) error {
	if _, err := admin.Exec(ctx, "REVOKE CONNECT ON DATABASE "+pgx.Identifier{database}.Sanitize()+" FROM PUBLIC, "+role); err != nil {
		return err
	}
	for {
		var left int
		err := admin.QueryRow(ctx, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1", database).Scan(&left)
		if err != nil || left == 0 {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A child is this test binary once more, as a process of its own.

const childEnv = "TENANCY_BENCH_CHILD"

type childSpec struct {
	Way              string // "tenancy" or "bare"
	Main, App        string // DSNs
	Tenant, Database string
}

type child struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// startChild starts a child, which ends with the benchmark, whatever happens:
// also by itself, when nobody has its other end of stdin any more.
func startChild(b *testing.B, spec childSpec) *child {
	b.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		end := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer end.Stop()
		_ = cmd.Wait()
	})
	c := &child{in: in, out: bufio.NewScanner(out)}
	c.hear(b, "ready")
	return c
}

func (c *child) say(b *testing.B, line string) {
	b.Helper()
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		b.Fatal(err)
	}
}

// hear returns what follows prefix in the child's next line. It does not wait
// for ever, for the child does not (see serve).
func (c *child) hear(b *testing.B, prefix string) string {
	b.Helper()
	if !c.out.Scan() {
		b.Fatalf("the child ended before it said %q: %v", prefix, c.out.Err())
	}
	rest, ok := strings.CutPrefix(c.out.Text(), prefix)
	if !ok {
		b.Fatalf("the child said %q, and not %q", c.out.Text(), prefix)
	}
	return rest
}

func isChild() bool { return os.Getenv(childEnv) != "" }

func runChild() int {
	var spec childSpec
	err := json.Unmarshal([]byte(os.Getenv(childEnv)), &spec)
	if err == nil {
		err = spec.run(bufio.NewScanner(os.Stdin))
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func (spec childSpec) run(in *bufio.Scanner) error {
	var read func(context.Context) error
	var isRefused func(error) bool
	var closer func() error
	var err error
	if spec.Way == "bare" {
		read, closer, err = spec.bare()
		isRefused = func(err error) bool {
			var e *pgconn.PgError
			return errors.As(err, &e) && e.Code == "42501" // permission denied for database
		}
	} else {
		read, closer, err = spec.tenancy()
		isRefused = func(err error) bool { return errors.Is(err, tenancy.ErrTenantSuspended) }
	}
	if err != nil {
		return err
	}
	defer closer() //nolint:errcheck // the process ends
	fmt.Println("ready")
	for in.Scan() {
		if in.Text() != "load" {
			return fmt.Errorf("unexpected %q", in.Text())
		}
		l := load{read: read, isRefused: isRefused}
		if err := l.serve(in); err != nil {
			return err
		}
	}
	return in.Err()
}

// load is what a process does between "load" and "stop".
type load struct {
	read      func(context.Context) error
	isRefused func(error) bool
	served    atomic.Bool // a statement has gone well
	refused   sync.Once
	broken    atomic.Int64
}

// serve reads until it is told to stop. Its workers go on when they are
// refused, as a server's handlers do for the next request.
func (l *load) serve(in *bufio.Scanner) error {
	ctx, cancel := context.WithTimeout(context.Background(), suspendPatience)
	defer cancel()
	loaded, refused, stop := make(chan struct{}), make(chan int64, 1), make(chan struct{})
	var once sync.Once
	var workers sync.WaitGroup
	for range suspendWorkers {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := l.read(ctx)
				switch {
				case err == nil:
					l.served.Store(true)
					once.Do(func() { close(loaded) })
					time.Sleep(suspendPace)
				case l.isRefused(err):
					// After Unsuspend, the news of it may come a moment later.
					if l.served.Load() {
						l.refused.Do(func() { refused <- time.Now().UnixNano() })
					}
					time.Sleep(time.Millisecond)
				default:
					l.broken.Add(1)
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	defer workers.Wait()
	defer close(stop)
	select {
	case <-loaded:
		fmt.Println("loaded")
	case <-ctx.Done():
		return errors.New("nothing was served")
	}
	select {
	case at := <-refused:
		fmt.Println("refused", at)
	case <-ctx.Done():
		return errors.New("nothing was refused")
	}
	if !in.Scan() {
		return errors.New("the parent is gone")
	}
	fmt.Println("stopped", l.broken.Load())
	return nil
}

const readOne = "SELECT count(*) FROM notes"

func (spec childSpec) tenancy() (read func(context.Context) error, closer func() error, err error) {
	main, err := gorm.Open(postgres.Open(spec.Main), quiet())
	if err != nil {
		return nil, nil, err
	}
	// It only serves: it knows no administrator.
	server, err := tenancypg.NewServer(tenancypg.ServerConfig{App: spec.App})
	if err != nil {
		return nil, nil, err
	}
	cat, err := catalog.New(main, catalog.Config{
		Servers: map[string]catalog.Server{"s1": server}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, err
	}
	plugin := tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancypg.Engine{}})
	if err := main.Use(plugin); err != nil {
		return nil, nil, err
	}
	read = func(ctx context.Context) error {
		var n int
		return main.WithContext(tenant.Ctx(ctx, spec.Tenant)).Raw(readOne).Scan(&n).Error
	}
	closer = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return plugin.Close(ctx)
	}
	return read, closer, nil
}

func (spec childSpec) bare() (read func(context.Context) error, closer func() error, err error) {
	cfg, err := pgx.ParseConfig(spec.App)
	if err != nil {
		return nil, nil, err
	}
	cfg.Database = spec.Database
	db := stdlib.OpenDB(*cfg)
	db.SetMaxIdleConns(suspendWorkers)
	read = func(ctx context.Context) error {
		var n int
		return db.QueryRowContext(ctx, readOne).Scan(&n)
	}
	return read, db.Close, nil
}
