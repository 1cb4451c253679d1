package tenant

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// CarrierKey is where a carrier holds the tenant's id. It is valid as the name
// of an HTTP header and as a key of gRPC metadata. A proxy at the edge should
// take it out of what comes from outside: see [Extract].
const CarrierKey = "tenancy-tenant"

// ErrMain is returned by [Extract] when the carrier says that the work is for
// the main database.
var ErrMain = errors.New("the main database is meant")

// A Carrier holds texts by key, and travels with a job, a message or a call.
// It has the methods of OpenTelemetry's propagation.TextMapCarrier, so what was
// written for that one fits: propagation.HeaderCarrier for an http.Header, the
// adapters for gRPC metadata and for message brokers.
//
// One that can hold several values of a key should also have OpenTelemetry's
// Values(key string) []string, as HeaderCarrier has: Extract then notices the
// second.
type Carrier interface {
	// Get returns the value of key, "" when there is none.
	Get(key string) string
	// Set replaces the value of key.
	Set(key, value string)
	// Keys lists the keys that have a value.
	Keys() []string
}

// MapCarrier is a [Carrier] that encoding/json knows, for the payload of a job.
type MapCarrier map[string]string

// Get returns the value of key, "" when there is none.
func (c MapCarrier) Get(key string) string { return c[key] }

// Set replaces the value of key. Like any map, c must have been made.
func (c MapCarrier) Set(key, value string) { c[key] = value }

// Keys lists the keys in no order.
func (c MapCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// Inject writes the tenant of ctx into carrier, for [Extract] on the other
// side. It takes the place of one that carrier holds already.
//
// For [Main] it writes a mark that is no tenant's id, which Extract reports as
// [ErrMain]; work for the main database is never what has no mark.
//
// A context without a tenant is [ErrMissing], one with an invalid id
// [ErrInvalid], and one that was asked for another tenant than it is pinned to
// [ErrMismatch]. Don't send what carrier belongs to then. Should it be sent all
// the same, Extract refuses it: a tenant that carrier held before is no longer
// in it.
func Inject(ctx context.Context, carrier Carrier) error {
	if m, ok := carrier.(MapCarrier); ok && m == nil {
		return errors.New("tenant: inject: the MapCarrier is nil; make it before")
	}
	keys := spellings(carrier)
	value, err := carried(scope.From(ctx))
	if err == nil && len(keys) > 1 {
		err = errTwice
	}
	if err != nil {
		for _, key := range keys {
			carrier.Set(key, "")
		}
		return fmt.Errorf("tenant: inject: %w", err)
	}
	if len(keys) == 0 {
		keys = []string{CarrierKey}
	}
	carrier.Set(keys[0], value)
	return nil
}

// Extract returns a context for the tenant that carrier names, pinned as by
// [Pin].
//
// No tenant in carrier is [ErrMissing], never the main database. An invalid id
// is [ErrInvalid]. [ErrMismatch] is a tenant that is another one than ctx is
// pinned to, or that is named twice. With an error the context that is returned
// leads to no database at all, whatever ctx did.
//
// [ErrMain] says that [Inject] had a context of [Main]. It is an error so that
// a worker that does such work says so itself:
//
//	jobCtx, err := tenant.Extract(ctx, job.Meta)
//	if errors.Is(err, tenant.ErrMain) {
//		jobCtx, err = tenant.Main(ctx), nil
//	}
//
// Who can write the carrier chooses the tenant. Extract makes sure that the id
// can be one, not that the sender may use it. So use it where only your own
// services write: a queue, a broker or an RPC whose clients are authenticated,
// or payloads that are signed. Never on the headers of a request from outside.
func Extract(ctx context.Context, carrier Carrier) (context.Context, error) {
	id, err := named(carrier)
	if err == nil {
		pinned := Pin(ctx, id)
		if s := scope.From(pinned); s.Conflicted {
			return pinned, fmt.Errorf("tenant: extract: %w", errConflict(s))
		}
		return pinned, nil
	}
	return nowhere(ctx), fmt.Errorf("tenant: extract: %w", err)
}

var (
	errNotCarried = fmt.Errorf("%w: the carrier has no %q; the sender must call tenant.Inject", ErrMissing, CarrierKey)
	errTwice      = fmt.Errorf("%w: the carrier has the key %q more than once; let only one side set it", ErrMismatch, CarrierKey)
)

func errConflict(s scope.Scope) error {
	return fmt.Errorf("%w: the context is pinned to %q, and %q was asked for; start from a context that is not pinned",
		ErrMismatch, s.Pin, s.Conflict)
}

// carried returns the value that stands for s in a carrier.
func carried(s scope.Scope) (string, error) {
	switch {
	case s.Conflicted:
		return "", errConflict(s)
	case s.Main:
		return scope.MainName, nil
	case s.ID == "":
		return "", fmt.Errorf("%w in the context; put it there with tenant.Ctx, or mean the main database with tenant.Main", ErrMissing)
	}
	return s.ID, Validate(s.ID)
}

// named returns the tenant that carrier names.
func named(carrier Carrier) (string, error) {
	keys := spellings(carrier)
	if len(keys) == 0 {
		return "", errNotCarried
	}
	if c, ok := carrier.(interface{ Values(string) []string }); len(keys) > 1 || ok && len(c.Values(keys[0])) > 1 {
		return "", errTwice
	}
	switch id := carrier.Get(keys[0]); id {
	case "":
		return "", errNotCarried
	case scope.MainName:
		return "", fmt.Errorf("%w; a worker that does its work says so itself, with tenant.Main", ErrMain)
	default:
		return id, Validate(id)
	}
}

// spellings returns the keys of carrier that mean CarrierKey: on its way
// through headers a key may change its case. Two of them, or one that is listed
// twice, are two senders' who did not know of each other.
func spellings(carrier Carrier) []string {
	var found []string
	for _, key := range carrier.Keys() {
		if strings.EqualFold(key, CarrierKey) {
			found = append(found, key)
		}
	}
	if len(found) == 0 && carrier.Get(CarrierKey) != "" { // its Keys lists nothing
		found = append(found, CarrierKey)
	}
	return found
}

// nowhere returns a context that names no tenant, not even to a db that is
// bound to one. Unlike Ctx(ctx, "") it is no conflict with a pin, so that Main
// is still possible; a conflict that ctx has already stays one.
func nowhere(ctx context.Context) context.Context {
	s := scope.From(ctx)
	s.ID, s.Named, s.Invalid, s.Main = "", true, true, false
	return scope.With(ctx, s)
}
