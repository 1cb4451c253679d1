package migrate

import (
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
	// have had no turn yet, in a run that was halted or stopped.
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
