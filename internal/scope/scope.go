// Package scope holds the one value that this module keeps in a
// [context.Context]: which database the work is meant for. Package tenant is
// its public face; the router reads it here, because it must tell "no tenant"
// from "two tenants".
package scope

import "context"

// MainName stands for the main database where a tenant's id would stand: in a
// carrier, in a log. An id can't begin with "_", so it is no tenant's, which
// "main" may be.
const MainName = "_main"

// Scope is what a context says about the database that is meant. The zero
// value says nothing. It is immutable, and two Scopes that mean the same are
// equal by ==.
type Scope struct {
	// ID is the tenant's id; "" when none was named. It may be invalid: see
	// Invalid.
	ID string
	// Named says that an id was given, even an empty one.
	Named bool
	// Invalid says that ID can't be a tenant's id.
	Invalid bool
	// Main says that the main database is meant. ID is then ignored, and
	// kept only for what a pin remembers.
	Main bool
	// Pin is the id that no later one may differ from; "" when not pinned.
	Pin string
	// Conflict is the id that was asked for against the Pin.
	Conflict string
	// Conflicted says that Conflict was asked for. Nothing undoes it.
	Conflicted bool
	// Sweep says that the work is one tenant's turn in a walk over many, which
	// is no sign that the tenant will be wanted again.
	Sweep bool
}

// Tenant reports the id of the one tenant that is meant, if there is one.
func (s Scope) Tenant() (id string, ok bool) {
	if !s.Named || s.Invalid || s.Main || s.Conflicted {
		return "", false
	}
	return s.ID, true
}

// Name returns what logs and traces call the database that is meant: the
// tenant's id, or [MainName]. It is "" when s names none, an invalid one, or
// another than it is pinned to. contrib/otel uses it too, in whatever version.
func (s Scope) Name() string {
	if s.Main && !s.Conflicted {
		return MainName
	}
	id, _ := s.Tenant()
	return id
}

type key struct{}

// From returns what ctx says; the zero Scope when it says nothing. It does
// not allocate.
func From(ctx context.Context) Scope {
	if s, ok := ctx.Value(key{}).(*Scope); ok {
		return *s
	}
	return Scope{}
}

// With returns a context that says s.
func With(ctx context.Context, s Scope) context.Context {
	return context.WithValue(ctx, key{}, &s)
}
