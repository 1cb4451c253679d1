// Package tenancystatus is a page for operators: what a [tenancy.Plugin] of this
// process does now, and what it did in the last minutes. It is an [http.Handler].
//
//	status, err := tenancystatus.New(tenancystatus.Config{Plugin: plugin})
//	...
//	defer status.Close()
//	mux.Handle("/admin/tenancy/", requireOperator(status))
//
// The page names tenants and servers, and has no authentication of its own: put
// it behind the application's. It shows no DSN and no data of a tenant, changes
// nothing, and asks no database.
//
// Figures are gathered from when New is called, whether or not anybody looks: who
// opens the page during an incident sees how it began. The history is kept in
// memory and is bounded; see [Config].
//
// The page is whole as the server sends it, and needs nothing from anywhere else.
// With JavaScript it keeps itself up to date, and says so when it can't.
//
// A request with ?format=json, or one that accepts application/json and not
// text/html, gets the same as JSON: a [Report].
//
// docs/statuspage.md says what each figure means.
package tenancystatus
