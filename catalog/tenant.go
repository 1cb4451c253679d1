package catalog

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// Tenant is a row of the catalog.
type Tenant struct {
	// UID is the row's own, for ever. An ID can come again, or change.
	UID string `json:"uid"`
	// ID is what the application calls the tenant; "" for a ready database
	// that waits for one.
	ID    string `json:"id,omitempty"`
	State State  `json:"state"`
	// Server names one of [Config.Servers], and Database is on it.
	Server   string `json:"server"`
	Database string `json:"database"`
	// Generation counts how often the database was put out of service; see
	// tenancy.Identity.
	Generation int64 `json:"generation"`
	// Version and Fingerprint are those of the schema, when last looked at.
	Version     int64  `json:"version"`
	Fingerprint string `json:"fingerprint,omitempty"`
	// MaxConns is tenancy.Database.MaxConns.
	MaxConns int               `json:"max_conns,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Adopted is true for a database that the catalog did not make.
	Adopted bool `json:"adopted,omitempty"`
	// Task is work that was begun and is not finished: by somebody who is at
	// it now, or who failed (then Step and LastError say where and why) or
	// died. [Catalog.Resume] finishes it.
	Task      Task   `json:"task,omitempty"`
	Step      string `json:"step,omitempty"`
	LastError string `json:"last_error,omitempty"`
	// Attention is the fingerprint of the migrations that failed here in a way
	// that does not go away by itself; see Migration, and migrate.Options.Retry.
	Attention string `json:"attention,omitempty"`
	// Migration is what became of the last migration, by MigrateTenants.
	Migration *migrate.Result `json:"migration,omitempty"`
	// Reason is what Suspend was told.
	Reason string `json:"reason,omitempty"`
	// Backup is where the backup hook put the last backup before a removal.
	Backup    string     `json:"backup,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	DeletedAt *time.Time `json:"deleted_at,omitempty"`

	revision   int64
	leaseOwner string
	leased     bool // by somebody, when the row was read
	run        int64
	attempts   int
	plan       plan
	bad        error // why the plan can't be read
}

// plan is what a task must know to be finished by another process.
type plan struct {
	// Was is the state that the task returns to.
	Was State `json:"was,omitempty"`
	// OldID and NewID are those of a rename.
	OldID string `json:"old_id,omitempty"`
	NewID string `json:"new_id,omitempty"`
	// Keep keeps the database of a removed tenant.
	Keep bool `json:"keep,omitempty"`
	// NoBackup leaves the backup hook out.
	NoBackup bool `json:"no_backup,omitempty"`
	// Migrate brings an adopted database forward, and Force adopts one that
	// says it is another catalog's.
	Migrate bool `json:"migrate,omitempty"`
	Force   bool `json:"force,omitempty"`
	// Drain is how long work in flight may go on: 0 for Config.Drain, negative
	// for not at all.
	Drain time.Duration `json:"drain,omitempty"`
	// Server and Database are the other place of the tenant's database: where a
	// move goes to or, when Switched, where it came from; the name that a
	// rename takes away. OldAdopted is Adopted of that one. Back says that the
	// move is called off.
	Server     string `json:"server,omitempty"`
	Database   string `json:"database,omitempty"`
	Switched   bool   `json:"switched,omitempty"`
	OldAdopted bool   `json:"old_adopted,omitempty"`
	Back       bool   `json:"back,omitempty"`
	// Owner is whose database it was that a move has left.
	Owner string `json:"owner,omitempty"`
	// Pinned says that the caller named the server.
	Pinned bool `json:"pinned,omitempty"`
	// Forget ends a tenant without its server.
	Forget bool `json:"forget,omitempty"`
}

func (p plan) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings only
	}
	return string(b)
}

// name is what errors call the tenant.
func (t Tenant) name() string {
	if t.ID == "" {
		return "(ready database " + t.Database + ")"
	}
	return t.ID
}

func (t Tenant) String() string {
	return fmt.Sprintf("%s (%s, %s on %s)", t.name(), t.State, t.Database, t.Server)
}
