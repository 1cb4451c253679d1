package tenancyhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Config says where the tenant of a request is named and who may use it.
type Config struct {
	// Source is the one place where a request names its tenant. Required.
	Source Source
	// Authorize says whether the request's principal may use the tenant id,
	// which is valid but may not exist. It is asked before Check and before the
	// handler, with the request as it came, whose context has no tenant yet:
	// where it asks the main database, that takes tenant.Main(r.Context()).
	// It returns nil to allow and [ErrForbidden], wrapped or not, to refuse; with
	// any other error the request fails too.
	//
	// Required, but not for the Source [Claim], whose token says it already. Set
	// [Anyone] where the handlers see to it.
	Authorize func(r *http.Request, id string) error
	// Check says whether the tenant is served, before the handler begins: nil,
	// or an error that is [tenancy.ErrTenantNotFound],
	// [tenancy.ErrTenantSuspended], [tenancy.ErrTenantBehind] or another one.
	// The plugin's [tenancy.Plugin.Check] is one, and [Resolves] makes one of a
	// Resolver. Its context means the tenant.
	//
	// Defaults to none: the handler's first statement fails then, and [Error]
	// makes the same response of it.
	Check func(ctx context.Context, id string) error
	// Public reports whether a request that names no tenant is served without
	// one: a health check, a landing page. A request that names one is treated
	// like any other. Defaults to none.
	Public func(r *http.Request) bool
	// Errors answers a request that is refused. To replace one response, handle
	// its error and leave the others to [Error], which is the default.
	Errors func(w http.ResponseWriter, r *http.Request, err error)
}

// Anyone is a Config.Authorize that allows everything: for tenants whose pages
// are public, and for applications whose handlers authorise.
func Anyone(*http.Request, string) error { return nil }

// New returns the middleware. It may be used for several handlers, and from any
// goroutine.
func New(cfg Config) (func(http.Handler) http.Handler, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Errors == nil {
		cfg.Errors = Error
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served, err := cfg.admit(r)
			if err != nil {
				cfg.Errors(w, r, err)
				return
			}
			// The server removes the files of an upload, but it looks for them in
			// the request that it has made (net/http, response.finishRequest).
			defer func() { r.MultipartForm = served.MultipartForm }()
			next.ServeHTTP(w, served)
		})
	}, nil
}

func (c Config) validate() error {
	switch {
	case c.Source.find == nil && c.Source.bad == nil:
		return errors.New("tenancyhttp: Config.Source is not set; set Subdomain, Host, PathPrefix, Header, Claim or Func")
	case c.Source.bad != nil:
		return fmt.Errorf("tenancyhttp: Config.Source: %w", c.Source.bad)
	case c.Authorize == nil && !c.Source.authorized:
		return errors.New("tenancyhttp: Config.Authorize is not set; set a function that says whether the request may use the tenant, or Anyone if the handlers do")
	}
	return nil
}

// admit returns the request that the handler gets.
func (c Config) admit(r *http.Request) (*http.Request, error) {
	found, err := c.Source.find(r)
	if err == nil && found.id == "" {
		err = tenancy.ErrNoTenant
	}
	if err != nil {
		if errors.Is(err, tenancy.ErrNoTenant) && c.Public != nil && c.Public(r) {
			return r, nil
		}
		return nil, requestError(found.id, err)
	}
	id := found.id
	if err := tenant.Validate(id); err != nil {
		return nil, requestError(id, err)
	}
	ctx, err := pin(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if c.Authorize != nil {
		if err := c.Authorize(r, id); err != nil {
			return nil, requestError(id, err)
		}
	}
	if c.Check != nil {
		if err := c.Check(ctx, id); err != nil {
			return nil, requestError(id, err)
		}
	}
	served := r.WithContext(ctx)
	if found.url != nil {
		served.URL = found.url
	}
	return served, nil
}

// pin returns ctx pinned to id, unless it means another tenant: two sources that
// differ must not be settled by their order.
func pin(ctx context.Context, id string) (context.Context, error) {
	before, named := tenant.ID(ctx)
	ctx = tenant.Pin(ctx, id)
	// ID knows no tenant after a conflict with a pin.
	if _, ok := tenant.ID(ctx); !ok || named && before != id {
		return nil, &tenancy.Error{Op: "http", Tenant: id, Err: tenancy.ErrTenantMismatch, Cause: ErrForbidden,
			Detail: "the request's context means another tenant already"}
	}
	return ctx, nil
}

// requestError puts the tenant to an error that does not say it.
func requestError(id string, err error) error {
	if is := new(tenancy.Error); errors.As(err, &is) {
		return err
	}
	e := &tenancy.Error{Op: "http", Tenant: id, Cause: err}
	switch {
	case errors.Is(err, tenancy.ErrNoTenant):
		e.Err, e.Hint = tenancy.ErrNoTenant, "name it where Config.Source looks, or make the route one of Config.Public"
	case errors.Is(err, ErrUntrustedPeer):
		e.Hint = "let the request come through the proxy, or add the peer to those that are trusted"
	}
	return e
}

// Resolves makes a Config.Check of a Resolver: for servers that have no plugin,
// a gateway for instance. r is asked for every request, so it should remember
// its answers, as a catalog does; its ctx means the main database. It does not
// know of schemas that are behind.
func Resolves(r tenancy.Resolver) func(ctx context.Context, id string) error {
	return func(ctx context.Context, id string) error {
		_, err := r.Resolve(tenant.Main(ctx), id)
		switch {
		case err == nil, errors.Is(err, tenancy.ErrTenantNotFound), errors.Is(err, tenancy.ErrTenantSuspended):
			return err
		}
		return &tenancy.Error{Op: "http", Tenant: id, Err: tenancy.ErrUnavailable, Cause: err,
			Detail: "the Resolver can't tell"}
	}
}
