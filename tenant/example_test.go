package tenant_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gorm-tenancy/tenancy/tenant"
)

type job struct {
	Kind string            `json:"kind"`
	Meta tenant.MapCarrier `json:"meta"`
}

// A job's payload says whose it is.
func ExampleInject() {
	ctx := tenant.Ctx(context.Background(), "acme") // the request's

	j := job{Kind: "send-invoice", Meta: tenant.MapCarrier{}}
	if err := tenant.Inject(ctx, j.Meta); err != nil {
		fmt.Println(err) // and nothing is enqueued
		return
	}
	payload, _ := json.Marshal(j)
	fmt.Println(string(payload))
	// Output:
	// {"kind":"send-invoice","meta":{"tenancy-tenant":"acme"}}
}

// A worker refuses a job without a tenant: it is not the main database's.
func ExampleExtract() {
	work := func(payload string) {
		var j job
		if err := json.Unmarshal([]byte(payload), &j); err != nil {
			fmt.Println(err)
			return
		}
		ctx, err := tenant.Extract(context.Background(), j.Meta)
		if err != nil {
			fmt.Println(errors.Is(err, tenant.ErrMissing), err)
			return
		}
		fmt.Println(tenant.ID(ctx))
	}
	work(`{"kind":"send-invoice","meta":{"tenancy-tenant":"acme"}}`)
	work(`{"kind":"send-invoice"}`)
	// Output:
	// acme true
	// true tenant: extract: no tenant: the carrier has no "tenancy-tenant"; the sender must call tenant.Inject
}

// A worker that does work for the main database says so itself.
func ExampleExtract_main() {
	meta := tenant.MapCarrier{}
	if err := tenant.Inject(tenant.Main(context.Background()), meta); err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background() // the worker's
	jobCtx, err := tenant.Extract(ctx, meta)
	if errors.Is(err, tenant.ErrMain) {
		fmt.Println("for the main database")
		jobCtx, err = tenant.Main(ctx), nil
	}
	_, isTenant := tenant.ID(jobCtx)
	fmt.Println(isTenant, err)
	// Output:
	// for the main database
	// false <nil>
}
