package tenancyhttp

import (
	"errors"
	"net/http"
	"net/url"
)

// Source is the one place where a request names its tenant: [Subdomain],
// [Host], [PathPrefix], [Header], [Claim] or [Func]. What is wrong with its
// arguments is an error of [New].
type Source struct {
	find       func(*http.Request) (found, error)
	bad        error
	authorized bool // whoever has it may use the tenant
}

// found is what a request says. The id is not validated; "" when it names none.
type found struct {
	id  string
	url *url.URL // for the handler, if not the request's
}

// Claim takes the tenant from a token or session that was verified before. f
// returns the claim's value: what an authenticating middleware in front has put
// in r's context, never what it reads from a header or cookie itself. "" is no
// tenant.
//
// The token says who may use the tenant, so Config.Authorize may be left out. A
// user of several tenants has a token for each, or the application is better off
// with another Source.
func Claim(f func(r *http.Request) (id string, err error)) Source {
	s := Func(f)
	s.authorized = true
	return s
}

// Func is a Source of your own. f returns the tenant that r names, "" for none,
// or an error that is one of package tenancy's or this one's; any other is
// answered as an internal error. f has to know what of r a client can forge.
func Func(f func(r *http.Request) (id string, err error)) Source {
	if f == nil {
		return Source{bad: errors.New("its function is nil")}
	}
	return Source{find: func(r *http.Request) (found, error) {
		id, err := f(r)
		return found{id: id}, err
	}}
}
