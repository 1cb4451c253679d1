package tenancy

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MetaTable is the table by which a tenant's database says whose it is. It has
// one row, with the columns uid and generation.
const MetaTable = "_tenant_meta"

// Identity is what a tenant's database must say of itself in [MetaTable]. Each
// new connection is asked before it is used: so a pool that outlived its
// tenant, a restored dump, a DSN that leads to another tenant's database are
// [ErrWrongDatabase], and no statement reaches it. The zero value asks nothing.
//
// A connection that is no [IdentityConn] can't tell a missing table from any
// other error of the query: it is refused too, but the error is
// [ErrUnavailable], with the driver's words.
type Identity struct {
	// UID is the tenant's own for ever: not its id, which may come again.
	UID string
	// Generation counts how often the database was put out of service: what
	// was opened before is of no use afterwards.
	Generation int64
}

// String returns uid/generation.
func (i Identity) String() string { return i.UID + "/" + strconv.FormatInt(i.Generation, 10) }

// IdentityConn is implemented by connections that know a better way to read
// [MetaTable] than a query through package database/sql/driver.
type IdentityConn interface {
	// Identity reads the table's row. The zero Identity says that the table or
	// the row is not there.
	Identity(ctx context.Context) (Identity, error)
}

const identityQuery = "SELECT uid, generation FROM " + MetaTable

// identityError is why a connection is not used.
type identityError struct{ want, got Identity }

func (e *identityError) Error() string {
	if e.got == (Identity{}) {
		return fmt.Sprintf("it does not say whose it is: %s has no row, want %s", MetaTable, e.want)
	}
	return fmt.Sprintf("%s says %s, want %s", MetaTable, e.got, e.want)
}

func (e *identityError) Unwrap() error { return ErrWrongDatabase }

// check asks a new connection whose database it leads to.
func (i Identity) check(ctx context.Context, conn driver.Conn) error {
	if i == (Identity{}) {
		return nil
	}
	var got Identity
	var err error
	if c, ok := conn.(IdentityConn); ok {
		got, err = c.Identity(ctx)
	} else {
		got, err = queryIdentity(ctx, conn)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", MetaTable, err)
	}
	if got != i {
		return &identityError{want: i, got: got}
	}
	return nil
}

// queryIdentity reads the row by the driver's own interfaces: database/sql is
// above the connection, not below.
func queryIdentity(ctx context.Context, conn driver.Conn) (i Identity, err error) {
	q, ok := conn.(driver.QueryerContext)
	if !ok {
		return i, fmt.Errorf("the driver's %T is no driver.QueryerContext", conn)
	}
	rows, err := q.QueryContext(ctx, identityQuery, nil)
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if len(rows.Columns()) != 2 {
		return i, fmt.Errorf("%d columns", len(rows.Columns()))
	}
	values := make([]driver.Value, 2)
	if err := rows.Next(values); err != nil {
		if err == io.EOF {
			return i, nil
		}
		return i, err
	}
	switch uid := values[0].(type) {
	case string:
		i.UID = uid
	case []byte:
		i.UID = string(uid)
	}
	generation, ok := values[1].(int64)
	if !ok {
		return Identity{}, fmt.Errorf("the generation is a %T", values[1])
	}
	i.Generation = generation
	return i, nil
}
