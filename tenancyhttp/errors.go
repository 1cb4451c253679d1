package tenancyhttp

import (
	"io"
	"net/http"
	"strconv"

	"github.com/gorm-tenancy/tenancy/internal/refusal"
)

var (
	// ErrForbidden is returned by a Config.Authorize that refuses, and is the
	// cause when the request's context means another tenant already.
	ErrForbidden = refusal.ErrForbidden
	// ErrUntrustedPeer is returned when a tenant's header comes from an address
	// that is not one of the proxies that set it; see [Header].
	ErrUntrustedPeer = refusal.ErrUntrustedPeer
)

// responses are what errors are answered with, by what they mean.
var responses = map[refusal.Meaning]struct {
	status int
	text   string
}{
	refusal.Internal:         {http.StatusInternalServerError, "internal server error"},
	refusal.NotFound:         {http.StatusNotFound, "tenant not found"},
	refusal.UntrustedPeer:    {http.StatusForbidden, "forbidden"},
	refusal.NoTenant:         {http.StatusBadRequest, "the request names no tenant"},
	refusal.InvalidTenant:    {http.StatusBadRequest, "the request names no valid tenant"},
	refusal.Suspended:        {http.StatusServiceUnavailable, "tenant suspended"},
	refusal.Behind:           {http.StatusServiceUnavailable, "tenant is being upgraded"},
	refusal.Unavailable:      {http.StatusServiceUnavailable, "service unavailable"},
	refusal.DeadlineExceeded: {http.StatusServiceUnavailable, "service unavailable"},
	refusal.Canceled:         {http.StatusServiceUnavailable, "service unavailable"},
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
	meaning := refusal.Of(err)
	a := responses[meaning]
	h := w.Header()
	// The handler's, for what it meant to say. Content-Encoding may be of
	// middleware that compresses, and stays, as in http.Error.
	h.Del("Content-Length")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	// A cache may keep a 404 (RFC 9110, section 15.5.5), and this one may be
	// meant for one user.
	h.Set("Cache-Control", "no-store")
	if wait := meaning.RetryAfter(); wait > 0 && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.text+"\n") // the client may be gone
}
