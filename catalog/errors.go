package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// Errors of the catalog, for errors.Is. A tenant that is not there is
// tenancy.ErrTenantNotFound, one that is suspended tenancy.ErrTenantSuspended,
// an id that can't be one tenancy.ErrInvalidTenant.
var (
	// ErrExists is returned when the id, or the database, is another
	// tenant's.
	ErrExists = errors.New("tenant exists")
	// ErrState is returned when the tenant's state does not allow the
	// operation.
	ErrState = errors.New("not possible in this state")
	// ErrBusy is returned when another process is at work on the tenant, and
	// did not finish in Config.Wait.
	ErrBusy = errors.New("another process is at work on the tenant")
	// ErrUnfinished is returned when earlier work on the tenant must be
	// finished first, by Catalog.Resume.
	ErrUnfinished = errors.New("earlier work on the tenant is unfinished")
	// ErrNotMigrated is returned when the catalog's tables are missing or out
	// of date; call Catalog.Migrate.
	ErrNotMigrated = errors.New("catalog not migrated")
	// ErrUnknownServer is returned when a row or an option names a server that
	// Config.Servers does not have.
	ErrUnknownServer = errors.New("unknown server")
)

// mainError is an error of the main database.
func (c *Catalog) mainError(op string, err error) error {
	e := &tenancy.Error{Op: op, Cause: err, Detail: "the catalog in the main database"}
	if errors.Is(err, errNotMigrated) || sqlerr.MissingTable(err) {
		e.Err, e.Hint = ErrNotMigrated, "call Catalog.Migrate once"
	}
	return e
}

// stateError says that t's state forbids op.
func stateError(op string, t Tenant, err error, hint string) error {
	return &tenancy.Error{Op: op, Tenant: t.ID, Err: err, Detail: "it is " + string(t.State), Hint: hint}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// digest shortens what may be of any length and form to 12 letters.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

func (c *Catalog) server(name string) (Server, error) {
	s, ok := c.cfg.Servers[name]
	if !ok {
		return nil, fmt.Errorf("%w: Config.Servers has no %q", ErrUnknownServer, name)
	}
	return s, nil
}
