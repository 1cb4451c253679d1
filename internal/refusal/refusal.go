// Package refusal says what an error means to whoever has asked for something in a
// tenant, in one order of precedence for all protocols.
package refusal

import (
	"context"
	"errors"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

var (
	// ErrForbidden is tenancyhttp.ErrForbidden.
	ErrForbidden = errors.New("the request may not use this tenant")
	// ErrUntrustedPeer is tenancyhttp.ErrUntrustedPeer.
	ErrUntrustedPeer = errors.New("the peer is not trusted to name a tenant")
)

// Meaning is what may be told of an error to a client.
type Meaning int

// The meanings. Internal is all else.
const (
	Internal      Meaning = iota
	NotFound              // or forbidden: a client must not learn which
	UntrustedPeer         // somebody is past the proxy
	NoTenant
	InvalidTenant
	Suspended
	Behind
	Unavailable
	DeadlineExceeded
	Canceled
)

// precedence has what is told first of an error that is several. NotFound leads:
// whatever else an error is, one that refuses must look like one of a tenant that
// isn't there.
var precedence = []struct {
	err     error
	meaning Meaning
}{
	{ErrForbidden, NotFound},
	{tenancy.ErrTenantNotFound, NotFound},
	{ErrUntrustedPeer, UntrustedPeer},
	{tenancy.ErrNoTenant, NoTenant},
	{tenancy.ErrInvalidTenant, InvalidTenant},
	{tenancy.ErrTenantSuspended, Suspended},
	{tenancy.ErrTenantBehind, Behind},
	{tenancy.ErrUnavailable, Unavailable},
	{tenancy.ErrPoolExhausted, Unavailable},
	{tenancy.ErrClosed, Unavailable},
	{context.DeadlineExceeded, DeadlineExceeded},
	{context.Canceled, Canceled},
}

// Of returns what err means.
func Of(err error) Meaning {
	for _, p := range precedence {
		if errors.Is(err, p.err) {
			return p.meaning
		}
	}
	return Internal
}

// RetryAfter is how long to wait before asking again, 0 where that does not help.
func (m Meaning) RetryAfter() time.Duration {
	switch m {
	case Suspended:
		return time.Minute
	case Behind:
		return 30 * time.Second
	case Unavailable, DeadlineExceeded, Canceled:
		return 5 * time.Second
	}
	return 0
}
