// Package tenant carries a tenant's id in a [context.Context]. It needs the
// standard library only, so every layer of an application can import it: HTTP
// middleware, job runners, services, tests.
//
//	ctx = tenant.Ctx(ctx, "acme")
//	db.WithContext(ctx).Find(&orders) // acme's orders
//
// The context holds the id and nothing else, never a connection or a
// *gorm.DB, so a context that outlives a tenant's move, eviction or rotated
// password stays right.
package tenant

import (
	"context"
	"errors"
	"fmt"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// MaxLen is the greatest length of an id, in bytes.
const MaxLen = 63

// The reasons why there is no tenant to work for. Statements are refused with
// the same ones, so a caller can tell them apart with [errors.Is] wherever they
// come from.
var (
	// ErrInvalid is returned by [Validate], and by every statement whose
	// tenant's id is not valid.
	ErrInvalid = errors.New("invalid tenant id")
	// ErrMissing is returned by [Inject] and [Extract] when there is no tenant
	// to carry, and by every statement whose context names none.
	ErrMissing = errors.New("no tenant")
	// ErrMismatch is returned by [Inject] and [Extract] when there is more than
	// one tenant, and by every statement whose context was pinned to another
	// one than it asks for.
	ErrMismatch = errors.New("tenant mismatch")
)

// Ctx returns a context that carries the tenant id. It replaces the id that
// ctx carries already, unless that one is pinned (see [Pin]): after such a
// conflict [ID] reports no tenant, and every statement is an error that names
// both ids. An id that is not valid is an error of the first statement too.
func Ctx(ctx context.Context, id string) context.Context {
	s := scope.From(ctx)
	if s.Conflicted {
		return ctx
	}
	if s.Pin != "" && s.Pin != id {
		s.Conflict, s.Conflicted, s.Main = id, true, false
		return scope.With(ctx, s)
	}
	s.ID, s.Named, s.Main = id, true, false
	s.Invalid = Validate(id) != nil
	return scope.With(ctx, s)
}

// ID returns the tenant id that ctx carries. It reports false when ctx carries
// none, an invalid one, a conflict, or when the main database is meant.
func ID(ctx context.Context) (id string, ok bool) {
	return scope.From(ctx).Tenant()
}

// Main returns a context for work in the main database: the one that db was
// opened on. It is the explicit way there, and is allowed under a pin, which
// it leaves in force for a later [Ctx].
func Main(ctx context.Context) context.Context {
	s := scope.From(ctx)
	if s.Conflicted || s.Main {
		return ctx
	}
	s.Main = true
	return scope.With(ctx, s)
}

// Pin is [Ctx], and makes a later [Ctx] with another id a conflict. Pin where
// the id was authenticated, so that no code behind it can choose another
// tenant by mistake.
func Pin(ctx context.Context, id string) context.Context {
	ctx = Ctx(ctx, id)
	s := scope.From(ctx)
	if s.Conflicted || s.Invalid {
		return ctx
	}
	s.Pin = id
	return scope.With(ctx, s)
}

// Validate reports whether id can be a tenant's id: 1 to 63 bytes of A-Z, a-z,
// 0-9, "_" and "-", the first a letter or a digit. Ids are compared byte by
// byte. The error is [ErrInvalid] and says what is wrong; it quotes the id, so
// that control characters can't reach a log.
func Validate(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrInvalid)
	case len(id) > MaxLen:
		return fmt.Errorf("%w: it has %d bytes, more than %d", ErrInvalid, len(id), MaxLen)
	case id[0] == '_' || id[0] == '-':
		return fmt.Errorf("%w %q: it must start with a letter or a digit", ErrInvalid, id)
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return fmt.Errorf("%w %q: byte %d is not one of A-Z a-z 0-9 _ -", ErrInvalid, id, i)
		}
	}
	return nil
}
