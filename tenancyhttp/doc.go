// Package tenancyhttp is net/http middleware that finds the tenant of a request
// and pins it in the request's context ([tenant.Pin]), so that every statement
// behind it runs in that tenant's database.
//
//	tenants, err := tenancyhttp.New(tenancyhttp.Config{
//		Source:    tenancyhttp.Subdomain("example.com"),
//		Authorize: mayUse, // func(r *http.Request, id string) error
//		Check:     plugin.Check,
//	})
//	...
//	http.ListenAndServe(addr, authenticate(tenants(mux)))
//
// There is one [Source], which is declared: nothing else in a request is looked
// at, and nothing is tried after it. An id is validated before anybody is asked
// about it.
//
// A request is looked at in this order, and the first refusal ends it:
//
//  1. the Source says which tenant is named ([tenancy.ErrNoTenant] if none:
//     Config.Public routes pass then, without a tenant);
//  2. [tenant.Validate];
//  3. a context that means another tenant already, an earlier middleware's for
//     instance, is refused;
//  4. Config.Authorize says whether the request may use the tenant;
//  5. Config.Check says whether the tenant is served.
//
// Whoever is refused in 3 or 4 gets the answer of a tenant that does not exist.
//
// docs/web.md says which Source to choose, and what must be true in front of it.
package tenancyhttp
