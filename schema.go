package tenancy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// SchemaRange says which versions of a tenant's schema the application works
// with. It is asked for once, when a tenant's pool is opened: a statement costs
// nothing more. The zero value checks nothing.
//
// With Migrate, tenants are brought forward at their first statement; without,
// it keeps a new build of the application from tenants that the run over all
// of them has not reached yet.
type SchemaRange struct {
	// Min is the oldest version that the application works with, and Max the
	// newest that it knows. 0 means no bound. Raise Min in the build that first
	// needs a migration's work. A tenant above Max is served, since a migration
	// should suit the build before it too, and is an EventAhead.
	Min, Max int64
	// Behind says what becomes of a tenant below Min that Migrate has not
	// brought forward. Defaults to BehindRefuse.
	Behind BehindPolicy
	// Migrate brings a tenant's schema forward: the MigrateTenant of a catalog
	// is one. If set, it is called for a tenant below Min before its pool is
	// opened, by one caller in this process at a time; against other processes
	// it takes a lock by itself. Its ctx means the main database, and ends with
	// MigrateTimeout or [Plugin.Close]. The tenant's database is reached with
	// [Plugin.OpenDB]: a statement under the tenant would wait for Migrate
	// itself, and is refused. When it fails it is called again after 5 seconds,
	// later after a minute, and in between the tenant is what Behind says.
	//
	// Statements wait for it as they do for a connection, see
	// [Limits.AcquireTimeout]; then they are [ErrUnavailable], and it goes on.
	Migrate func(ctx context.Context, id string) error
	// MigrateTimeout bounds Migrate. Raise it where single migrations take
	// long. Defaults to 1 minute.
	MigrateTimeout time.Duration
	// Current returns the version of db's schema, as the Current of a
	// migrate.Migrator does. It is asked where the Resolver says nothing
	// ([Database.Schema] is 0), at each opening, over one of the tenant's
	// connections. Without it, a version that is not known is below Min.
	Current func(ctx context.Context, db *sql.DB) (int64, error)
}

// BehindPolicy says what becomes of a tenant whose schema is older than the
// application works with.
type BehindPolicy int

const (
	// BehindRefuse refuses its statements with [ErrTenantBehind].
	BehindRefuse BehindPolicy = iota
	// BehindIgnore serves it, and is an EventBehind for each opening.
	BehindIgnore
)

func (r SchemaRange) validate() error {
	switch {
	case r.Min < 0:
		return fmt.Errorf("tenancy.Config.Schema.Min is negative: %d", r.Min)
	case r.Max < 0:
		return fmt.Errorf("tenancy.Config.Schema.Max is negative: %d", r.Max)
	case r.Max > 0 && r.Max < r.Min:
		return fmt.Errorf("tenancy.Config.Schema.Max is %d, less than Min, which is %d; raise it, or leave it out for no bound", r.Max, r.Min)
	case r.Behind != BehindRefuse && r.Behind != BehindIgnore:
		return fmt.Errorf("tenancy.Config.Schema.Behind is %d; set BehindRefuse or BehindIgnore", r.Behind)
	case r.Migrate != nil && r.Min == 0:
		return errors.New("tenancy.Config.Schema.Migrate is set but Min is not, so that no tenant is ever behind; set Min to the version that the application needs")
	}
	return nil
}

// asks reports whether a version is needed at all.
func (r SchemaRange) asks() bool { return r.Min > 0 || r.Max > 0 }

// schemaVersion is a version, if it is known.
type schemaVersion struct {
	number int64
	known  bool
}

// behind reports whether v is below the range. Nobody can say so of a version
// that is not known, so that counts as below: the check fails closed.
func (r SchemaRange) behind(v schemaVersion) bool {
	return r.Min > 0 && (!v.known || v.number < r.Min)
}

func (r SchemaRange) ahead(v schemaVersion) bool {
	return r.Max > 0 && v.known && v.number > r.Max
}

// behindError is why the tenant is not served; cause is why Migrate has not
// helped, or nil.
func (r SchemaRange) behindError(id string, v schemaVersion, cause error) *Error {
	err := &Error{Op: "open", Tenant: id, Err: ErrTenantBehind, Cause: cause,
		Detail: fmt.Sprintf("its schema has version %d, the application needs %d at least", v.number, r.Min),
		Hint:   "run the migrations of all tenants, or set Config.Schema.Migrate"}
	if !v.known {
		err.Detail = fmt.Sprintf("the version of its schema is not known, the application needs %d at least", r.Min)
		err.Hint = "let the Resolver set Database.Schema, or set Config.Schema.Current"
	}
	if cause != nil {
		err.Hint = "mend its migration; it is tried again within a minute, or after Evict"
	}
	return err
}

// aheadError is what EventAhead says.
func (r SchemaRange) aheadError(id string, v schemaVersion) *Error {
	return &Error{Op: "open", Tenant: id,
		Detail: fmt.Sprintf("its schema has version %d, the application knows %d at most", v.number, r.Max),
		Hint:   "deploy the newer application here too, or raise Config.Schema.Max"}
}
