package tenancyhttp

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/gorm-tenancy/tenancy"
)

var (
	// ErrForbidden is returned by a Config.Authorize that refuses, and is the
	// cause when the request's context means another tenant already.
	ErrForbidden = errors.New("the request may not use this tenant")
	// ErrUntrustedPeer is returned when a tenant's header comes from an address
	// that is not one of the proxies that set it; see [Header].
	ErrUntrustedPeer = errors.New("the peer is not trusted to name a tenant")
)

// response is what one kind of error is answered with.
type response struct {
	status     int
	text       string
	retryAfter string // seconds; "" for no such header
}

// Error answers with what err means to a client:
//
//   - 404 for [tenancy.ErrTenantNotFound], and the very same for [ErrForbidden]:
//     who may not use a tenant does not learn whether it exists;
//   - 503 with Retry-After for [tenancy.ErrTenantSuspended] (60 seconds),
//     [tenancy.ErrTenantBehind] (30), [tenancy.ErrUnavailable],
//     [tenancy.ErrPoolExhausted], [tenancy.ErrClosed] and a context that is over
//     (5);
//   - 400 for [tenancy.ErrNoTenant] and [tenancy.ErrInvalidTenant];
//   - 403 for [ErrUntrustedPeer];
//   - 500 for all else.
//
// The body is a fixed line of text, nothing of err is in it. Nothing of it may
// be cached. A Retry-After that is set in w already is left as it is. Handlers
// call it too, with the error of a statement.
func Error(w http.ResponseWriter, _ *http.Request, err error) {
	a := responseTo(err)
	h := w.Header()
	// The handler's, for what it meant to say. Content-Encoding may be of
	// middleware that compresses, and stays, as in http.Error.
	h.Del("Content-Length")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	// A cache may keep a 404 (RFC 9110, section 15.5.5), and this one may be
	// meant for one user.
	h.Set("Cache-Control", "no-store")
	if a.retryAfter != "" && h.Get("Retry-After") == "" {
		h.Set("Retry-After", a.retryAfter)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.text+"\n") // the client may be gone
}

func responseTo(err error) response {
	is := func(reasons ...error) bool {
		for _, reason := range reasons {
			if errors.Is(err, reason) {
				return true
			}
		}
		return false
	}
	switch {
	case is(ErrForbidden, tenancy.ErrTenantNotFound): // first: whatever else it is, it must look the same
		return response{http.StatusNotFound, "tenant not found", ""}
	case is(ErrUntrustedPeer):
		return response{http.StatusForbidden, "forbidden", ""}
	case is(tenancy.ErrNoTenant):
		return response{http.StatusBadRequest, "the request names no tenant", ""}
	case is(tenancy.ErrInvalidTenant):
		return response{http.StatusBadRequest, "the request names no valid tenant", ""}
	case is(tenancy.ErrTenantSuspended):
		return response{http.StatusServiceUnavailable, "tenant suspended", "60"}
	case is(tenancy.ErrTenantBehind):
		return response{http.StatusServiceUnavailable, "tenant is being upgraded", "30"}
	case is(tenancy.ErrUnavailable, tenancy.ErrPoolExhausted, tenancy.ErrClosed, context.DeadlineExceeded, context.Canceled):
		return response{http.StatusServiceUnavailable, "service unavailable", "5"}
	}
	return response{http.StatusInternalServerError, "internal server error", ""}
}
