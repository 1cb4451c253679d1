package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// finding is what one check of doctor has found.
type finding struct {
	Check  string  `json:"check"`
	Result verdict `json:"result"`
	Detail string  `json:"detail,omitempty"`
	Next   string  `json:"next,omitempty"`
}

type verdict string

const (
	ok   verdict = "ok"
	warn verdict = "warn"
	fail verdict = "FAIL"
)

// doctor is one examination.
type doctor struct {
	r        *run
	findings []finding
	err      error // of stdout
}

// checkTime bounds each check: a server that hangs must not hold up the rest.
const checkTime = 20 * time.Second

func (b builder) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "look whether everything is in order, and say what to do", Args: noArgs,
		Long: "Looks at the main database, the servers, the catalog, and a tenant of each server,\n" +
			"and changes nothing. Exit code 2: something fails.",
		RunE: b.do(func(r *run, _ []string) error {
			d := &doctor{r: r, findings: []finding{}}
			d.examine()
			if r.json {
				d.err = r.printJSON(d.findings)
			}
			if d.err == nil && slices.ContainsFunc(d.findings, func(f finding) bool { return f.Result == fail }) {
				return exitCode(exitPartial)
			}
			return r.cause(d.err)
		}),
	}
}

// add notes and prints a finding.
func (d *doctor) add(check string, v verdict, detail, next string) {
	f := finding{check, v, printable(detail), printable(next)}
	d.findings = append(d.findings, f)
	if d.r.json || d.err != nil {
		return
	}
	line := fmt.Sprintf("%-4s  %s", v, check)
	if detail != "" {
		line += ": " + f.Detail
	}
	if next != "" {
		line += "; " + f.Next
	}
	_, d.err = fmt.Fprintln(d.r.out, line)
}

// judge adds ok, or err as a failure.
func (d *doctor) judge(check string, err error, detail, next string) bool {
	if err == nil {
		d.add(check, ok, detail, "")
		return true
	}
	d.add(check, fail, oneLine(d.r.opts.Name, d.r.cause(err)), next)
	return false
}

// within gives a check its time.
func (d *doctor) within(fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(d.r.ctx, checkTime, fmt.Errorf("no answer in %s", checkTime))
	defer cancel()
	err := fn(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (d *doctor) examine() {
	if !d.main() {
		return // nothing else can be known
	}
	loads, err := d.r.cat.Loads(d.r.ctx)
	if err != nil {
		d.judge("servers", err, "", "")
		return
	}
	for _, l := range loads {
		if a, known := d.r.app.Servers[l.Server]; known && a.Admin != "" {
			d.postgres(l.Server, a)
		}
	}
	d.audit(loads)
	d.tenants(loads)
	d.reach(loads)
}

// main looks at the main database and the catalog in it.
func (d *doctor) main() bool {
	name := d.r.opts.Name
	err := d.within(func(ctx context.Context) error {
		db, err := d.r.app.DB.DB()
		if err != nil {
			return err
		}
		return db.PingContext(ctx)
	})
	if !d.judge("main database", err, "it answers", "see that its server runs, and what the configuration says of it") {
		return false
	}
	err = d.within(func(ctx context.Context) error {
		_, err := d.r.cat.Status(ctx)
		return err
	})
	if errors.Is(err, catalog.ErrNotMigrated) {
		d.add("catalog", fail, "its tables are missing or out of date", "run `"+name+" migrate`")
		return false
	}
	return d.judge("catalog", err, "its tables are there", "")
}

// audit compares the catalog with what is on the servers.
func (d *doctor) audit(loads []catalog.Load) {
	var a catalog.Audit
	err := d.within(func(ctx context.Context) (err error) {
		a, err = d.r.cat.Audit(ctx)
		return err
	})
	if err != nil {
		d.judge("audit", err, "", "")
		return
	}
	for _, l := range loads {
		if err, down := a.Unreachable[l.Server]; down {
			next := "see that it runs, and what the configuration says of its administrator"
			if errors.Is(err, catalog.ErrNoAdmin) {
				next = ""
			}
			d.judge("server "+l.Server, err, "", next)
			continue
		}
		d.add("server "+l.Server, ok, fmt.Sprintf("its administrator reaches it; %s, %d ready", tenants(l.Tenants), l.Ready), "")
	}
	for server, err := range a.Unreachable {
		if !slices.ContainsFunc(loads, func(l catalog.Load) bool { return l.Server == server }) {
			d.judge("server "+server, err, "", "name it in the configuration, or remove its tenants with --forget")
		}
	}
	for _, t := range a.Missing {
		d.add("tenant "+nameOf(t), fail, "its database "+t.Database+" is not on "+t.Server, "restore it from a backup after `"+d.r.opts.Name+" remove "+t.ID+" --forget`")
	}
	old := 0
	for _, o := range a.Orphans {
		switch {
		case o.Old:
			old++
		case o.Ours:
			d.add("orphan", warn, fmt.Sprintf("no tenant knows the database %s on %s", o.Name, o.Server), "look into it, then adopt it or drop it")
		default:
			d.add("orphan", warn, fmt.Sprintf("the database %s on %s does not say whose it is", o.Name, o.Server), "look into it, then drop it")
		}
	}
	if old > 0 {
		d.add("templates", warn, count(old, "is of earlier migrations", "are of earlier migrations"), "drop them when no older program runs any more")
		return
	}
	d.add("templates", ok, "none is of earlier migrations", "")
}

// tenants looks at what the catalog knows of them.
func (d *doctor) tenants(loads []catalog.Load) {
	name := d.r.opts.Name
	st, err := d.r.cat.Status(d.r.ctx)
	if err != nil {
		d.judge("status", err, "", "")
		return
	}
	switch code := statusCode(st); {
	case code == exitHalted:
		d.add("migrations", fail, "they are halted: "+st.Halted, "mend it, then run `"+name+" retry`")
	case st.Attention > 0:
		d.add("migrations", fail, fmt.Sprintf("they failed in %s", tenants(st.Attention)), "mend it, then run `"+name+" retry`")
	case st.Behind > 0:
		d.add("migrations", warn, fmt.Sprintf("%s behind version %d", count(st.Behind, "tenant is", "tenants are"), st.Target), "run `"+name+" migrate`")
	case st.Fingerprint == "":
		d.add("migrations", warn, "none are configured", "")
	default:
		d.add("migrations", ok, fmt.Sprintf("all tenants are at version %d", st.Target), "")
	}
	if st.Unfinished > 0 {
		d.add("unfinished work", warn, tenants(st.Unfinished), "run `"+name+" resume`; see `"+name+" list --unfinished`")
		return
	}
	d.add("unfinished work", ok, "none", "")
}

// reach opens a tenant of each server as the application does.
func (d *doctor) reach(loads []catalog.Load) {
	for _, l := range loads {
		for id, err := range d.r.cat.IDs(d.r.ctx, catalog.Filter{Server: l.Server}) {
			check := "application on " + l.Server
			if err == nil {
				check += ", tenant " + id
				err = d.within(func(ctx context.Context) error {
					return tenancy.With(ctx, d.r.app.DB, id, func(_ context.Context, db *gorm.DB) error {
						return db.Exec("SELECT 1").Error
					})
				})
			}
			d.judge(check, err, "it reads", "see what the configuration says of the application's login")
			break
		}
	}
}
