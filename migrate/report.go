package migrate

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Status is how a run, or a tenant's part in it, ended.
type Status string

// The statuses.
const (
	// StatusDone: it is at the target.
	StatusDone Status = "done"
	// StatusFailed: a tenant's migration failed, also when tried again.
	StatusFailed Status = "failed"
	// StatusSkipped: a tenant was not tried; see Result.Error.
	StatusSkipped Status = "skipped"
	// StatusPending: a tenant has not had its turn.
	StatusPending Status = "pending"
	// StatusPartial: a run ended, and some tenants are not at the target.
	StatusPartial Status = "partial"
	// StatusHalted: a run was ended before all tenants had their turn, by a
	// failed canary, the breaker, or a person.
	StatusHalted Status = "halted"
	// StatusStopped: a run was ended by its caller. It can be gone on with.
	StatusStopped Status = "stopped"
)

// Report is what a run has done. It includes what other processes did in the
// same run.
type Report struct {
	// Run names the run; "" if there was nothing to do.
	Run    string `json:"run,omitempty"`
	Status Status `json:"status"`
	// Target and Fingerprint are the Migrator's.
	Target      int64  `json:"target"`
	Fingerprint string `json:"fingerprint"`
	// Reason says why the run was halted or stopped.
	Reason string `json:"reason,omitempty"`
	// Main is what was done to the main database, if the run began with that.
	Main *Result `json:"main,omitempty"`
	// UpToDate is the number of tenants that were at the target before, and
	// Ahead of those that a newer program has brought further.
	UpToDate int `json:"up_to_date"`
	Ahead    int `json:"ahead,omitempty"`
	// Done, Failed and Skipped count Tenants; Left is the number of tenants that
	// have had no turn yet, in a run that was halted or stopped. Tenants lists
	// those only after a dry run.
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
	Left    int `json:"left,omitempty"`
	// Began is when the run began, by the clock of who keeps its books, and
	// Took how long this process was at it.
	Began time.Time     `json:"began"`
	Took  time.Duration `json:"took_ns"`
	// Tenants are those that the run had to do with, failures first.
	Tenants []Result `json:"tenants"`
}

// Result is what was done to one database.
type Result struct {
	Tenant string `json:"tenant"`
	Server string `json:"server,omitempty"`
	Status Status `json:"status"`
	// From and To are the versions before the run and after it.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Applied are the migrations of the last attempt. It can be empty though
	// To is greater than From: when a process died after the migrations and
	// before it could say so.
	Applied []Applied `json:"applied,omitempty"`
	// Took is the time of the last attempt, and Attempts their number, by all
	// processes.
	Took     time.Duration `json:"took_ns"`
	Attempts int           `json:"attempts"`
	// Error is why it failed or was skipped, SQLState the server's code for it,
	// and Version the migration that failed, where they are known.
	Error    string `json:"error,omitempty"`
	SQLState string `json:"sqlstate,omitempty"`
	Version  int64  `json:"version,omitempty"`
}

// conclude says how the run ended, where its book does not.
func (r *Report) conclude(stopped bool) {
	r.tally()
	switch {
	case r.Status == StatusHalted || r.Status == StatusStopped:
	case r.Left > 0 && stopped:
		r.Status = StatusStopped
	case r.Failed+r.Skipped+r.Left > 0:
		r.Status = StatusPartial
	default:
		r.Status = StatusDone
	}
}

// order is that of the statuses in a report.
var order = []Status{StatusFailed, StatusSkipped, StatusPending, StatusDone}

// tally counts Tenants, and puts them in their order.
func (r *Report) tally() {
	c := map[Status]int{}
	for _, t := range r.Tenants {
		c[t.Status]++
	}
	r.Done, r.Failed, r.Skipped = c[StatusDone], c[StatusFailed], c[StatusSkipped]
	r.Left = max(r.Left, c[StatusPending])
	slices.SortStableFunc(r.Tenants, func(a, b Result) int {
		return cmp.Or(slices.Index(order, a.Status)-slices.Index(order, b.Status),
			strings.Compare(a.Server, b.Server), strings.Compare(a.Tenant, b.Tenant))
	})
}

func (r *Report) counts() Counts {
	return Counts{Done: r.Done, Failed: r.Failed, Skipped: r.Skipped, Left: r.Left}
}

// Err is nil if all tenants are at the target; otherwise it wraps ErrHalted,
// ErrStopped or ErrIncomplete, and says how many are not.
func (r *Report) Err() error {
	if r == nil {
		return nil
	}
	reason := ""
	if r.Reason != "" {
		reason = ": " + r.Reason
	}
	switch r.Status {
	case StatusHalted:
		return fmt.Errorf("migrate: %w%s (%s)", ErrHalted, reason, r.sum())
	case StatusStopped:
		return fmt.Errorf("migrate: %w (%s)", ErrStopped, r.sum())
	case StatusPartial:
		return fmt.Errorf("migrate: %w (%s)", ErrIncomplete, r.sum())
	}
	return nil
}

// ExitCode is what a command should exit with: 0 if all tenants are at the
// target, 3 if the run was halted, and 2 otherwise; 1 for a nil Report, where
// the run did not begin.
func (r *Report) ExitCode() int {
	if r == nil {
		return 1
	}
	switch r.Status {
	case StatusDone:
		return 0
	case StatusHalted:
		return 3
	}
	return 2
}

func (r *Report) sum() string {
	parts := []string{fmt.Sprintf("%d done", r.Done)}
	for _, p := range []struct {
		n    int
		what string
	}{{r.Failed, "failed"}, {r.Skipped, "skipped"}, {r.Left, "left"}, {r.UpToDate, "up to date before"}, {r.Ahead, "ahead"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// WriteTo writes the report as text for people: all that failed, and of the
// rest only numbers. It writes nothing for a nil Report.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	if r == nil {
		return 0, nil
	}
	var b strings.Builder
	if r.Main != nil {
		fmt.Fprintf(&b, "main: %s\n", r.Main.line())
	}
	fmt.Fprintf(&b, "%s: %s, to version %d, in %s\n", r.Status, r.sum(), r.Target, round(r.Took))
	if r.Reason != "" {
		fmt.Fprintf(&b, "reason: %s\n", r.Reason)
	}
	for _, t := range r.Tenants {
		if t.Status == StatusFailed || t.Status == StatusSkipped {
			fmt.Fprintf(&b, "%s %s on %s: %s\n", t.Status, t.Tenant, t.Server, t.line())
		}
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// line is what there is to say of one database.
func (t Result) line() string {
	var b strings.Builder
	if t.From == t.To {
		fmt.Fprintf(&b, "version %d", t.To)
	} else {
		fmt.Fprintf(&b, "version %d to %d", t.From, t.To)
	}
	if t.Attempts > 1 {
		fmt.Fprintf(&b, ", %d attempts", t.Attempts)
	}
	if t.Took > 0 {
		fmt.Fprintf(&b, ", %s", round(t.Took))
	}
	if t.Error != "" {
		b.WriteString(": " + t.Error)
		if t.SQLState != "" && !strings.Contains(t.Error, t.SQLState) {
			b.WriteString(" (SQLSTATE " + t.SQLState + ")")
		}
	}
	return b.String()
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
