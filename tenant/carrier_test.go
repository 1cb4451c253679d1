package tenant_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/gorm-tenancy/tenancy/internal/scope"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// headers is what OpenTelemetry's propagation.HeaderCarrier is.
type headers http.Header

func (h headers) Get(key string) string      { return http.Header(h).Get(key) }
func (h headers) Set(key, value string)      { http.Header(h).Set(key, value) }
func (h headers) Values(key string) []string { return http.Header(h).Values(key) }
func (h headers) Keys() []string             { return slices.Collect(maps.Keys(h)) }

// message is what adapters for message brokers are: a list of headers, of which
// Get returns the first.
type message struct{ list [][2]string }

func (m *message) Get(key string) string {
	for _, h := range m.list {
		if h[0] == key {
			return h[1]
		}
	}
	return ""
}

func (m *message) Set(key, value string) {
	m.list = slices.DeleteFunc(m.list, func(h [2]string) bool { return h[0] == key })
	m.list = append(m.list, [2]string{key, value})
}

func (m *message) Keys() []string {
	var keys []string
	for _, h := range m.list {
		keys = append(keys, h[0])
	}
	return keys
}

// mute lists no keys, as some adapters do.
type mute struct{ tenant.MapCarrier }

func (mute) Keys() []string { return nil }

// leadsNowhere fails unless a statement with ctx would be refused, on a db that
// is bound to a tenant too.
func leadsNowhere(t interface {
	Helper()
	Fatalf(string, ...any)
}, ctx context.Context) {
	t.Helper()
	s := scope.From(ctx)
	if _, ok := tenant.ID(ctx); ok || s.Main || !s.Named {
		t.Fatalf("leads somewhere: %+v", s)
	}
}

func TestInject(t *testing.T) {
	bg := context.Background()
	pinned := tenant.Pin(bg, "acme")
	for name, c := range map[string]struct {
		ctx  context.Context
		want string
		err  error
	}{
		"a tenant":         {tenant.Ctx(bg, "acme"), "acme", nil},
		"a pinned one":     {pinned, "acme", nil},
		"called main":      {tenant.Ctx(bg, "main"), "main", nil},
		"main":             {tenant.Main(bg), "_main", nil},
		"main under a pin": {tenant.Main(pinned), "_main", nil},
		"none":             {bg, "", tenant.ErrMissing},
		"an empty one":     {tenant.Ctx(bg, ""), "", tenant.ErrMissing},
		"the mark as id":   {tenant.Ctx(bg, "_main"), "", tenant.ErrInvalid},
		"an invalid one":   {tenant.Ctx(bg, "a\r\nb"), "", tenant.ErrInvalid},
		"a conflict":       {tenant.Ctx(pinned, "b\n"), "", tenant.ErrMismatch},
	} {
		for kind, carrier := range map[string]tenant.Carrier{
			"map":                  tenant.MapCarrier{},
			"map with another":     tenant.MapCarrier{tenant.CarrierKey: "other", "k": "v"},
			"map, other case":      tenant.MapCarrier{"Tenancy-Tenant": "other"},
			"headers":              headers{},
			"headers with another": headers{"Tenancy-Tenant": {"other", "third"}},
			"message":              &message{},
			"message with another": &message{list: [][2]string{{tenant.CarrierKey, "other"}}},
			"mute":                 mute{tenant.MapCarrier{tenant.CarrierKey: "other"}},
		} {
			err := tenant.Inject(c.ctx, carrier)
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%s: the error has raw bytes: %q", name, err)
			}
			got := carrier.Get(tenant.CarrierKey)
			if kind == "map, other case" {
				got = carrier.Get("Tenancy-Tenant")
				if carrier.Get(tenant.CarrierKey) != "" {
					t.Errorf("%s, %s: has both: %v", name, kind, carrier)
				}
			}
			if got != c.want {
				t.Errorf("%s, %s: carries %q, want %q", name, kind, got, c.want)
			}
			if kind == "map with another" && carrier.Get("k") != "v" {
				t.Errorf("%s: lost another key", name)
			}
		}
	}
}

func TestInjectRefusesCarrier(t *testing.T) {
	ctx := tenant.Ctx(context.Background(), "acme")
	if err := tenant.Inject(ctx, tenant.MapCarrier(nil)); err == nil || !strings.Contains(err.Error(), "nil") {
		t.Errorf("a nil map: %v", err)
	}
	twice := tenant.MapCarrier{"tenancy-tenant": "a", "Tenancy-Tenant": "b"}
	if err := tenant.Inject(ctx, twice); !errors.Is(err, tenant.ErrMismatch) {
		t.Errorf("two keys: %v", err)
	}
	if _, err := tenant.Extract(ctx, twice); err == nil {
		t.Errorf("can be extracted all the same: %v", twice)
	}
}

func TestExtract(t *testing.T) {
	bg := context.Background()
	for name, c := range map[string]struct {
		carrier tenant.Carrier
		want    string
		err     error
	}{
		"map":              {tenant.MapCarrier{tenant.CarrierKey: "acme"}, "acme", nil},
		"map, other case":  {tenant.MapCarrier{"Tenancy-Tenant": "acme"}, "acme", nil},
		"headers":          {headers{"Tenancy-Tenant": {"acme"}}, "acme", nil},
		"message":          {&message{list: [][2]string{{"x", "y"}, {tenant.CarrierKey, "acme"}}}, "acme", nil},
		"mute":             {mute{tenant.MapCarrier{tenant.CarrierKey: "acme"}}, "acme", nil},
		"called main":      {tenant.MapCarrier{tenant.CarrierKey: "main"}, "main", nil},
		"main":             {tenant.MapCarrier{tenant.CarrierKey: "_main"}, "", tenant.ErrMain},
		"nil map":          {tenant.MapCarrier(nil), "", tenant.ErrMissing},
		"another key":      {tenant.MapCarrier{"tenant": "acme"}, "", tenant.ErrMissing},
		"empty":            {tenant.MapCarrier{tenant.CarrierKey: ""}, "", tenant.ErrMissing},
		"no values":        {headers{"Tenancy-Tenant": {}}, "", tenant.ErrMissing},
		"mute and empty":   {mute{tenant.MapCarrier{}}, "", tenant.ErrMissing},
		"invalid":          {tenant.MapCarrier{tenant.CarrierKey: "../acme"}, "", tenant.ErrInvalid},
		"a blank":          {tenant.MapCarrier{tenant.CarrierKey: " acme"}, "", tenant.ErrInvalid},
		"joined by proxy":  {tenant.MapCarrier{tenant.CarrierKey: "acme, bravo"}, "", tenant.ErrInvalid},
		"nearly main":      {tenant.MapCarrier{tenant.CarrierKey: "_Main"}, "", tenant.ErrInvalid},
		"too long":         {tenant.MapCarrier{tenant.CarrierKey: strings.Repeat("a", 64)}, "", tenant.ErrInvalid},
		"two spellings":    {tenant.MapCarrier{"tenancy-tenant": "acme", "Tenancy-Tenant": "bravo"}, "", tenant.ErrMismatch},
		"two headers":      {headers{"Tenancy-Tenant": {"bravo", "acme"}}, "", tenant.ErrMismatch},
		"listed twice":     {&message{list: [][2]string{{tenant.CarrierKey, "bravo"}, {tenant.CarrierKey, "acme"}}}, "", tenant.ErrMismatch},
		"first one empty":  {&message{list: [][2]string{{tenant.CarrierKey, ""}, {tenant.CarrierKey, "acme"}}}, "", tenant.ErrMismatch},
		"main and another": {headers{"Tenancy-Tenant": {"_main", "acme"}}, "", tenant.ErrMismatch},
	} {
		for from, ctx := range map[string]context.Context{
			"nothing":  bg,
			"a tenant": tenant.Ctx(bg, "before"),
			"main":     tenant.Main(bg),
			"a pin":    tenant.Pin(bg, "acme"),
		} {
			got, err := tenant.Extract(ctx, c.carrier)
			wantErr := c.err
			if from == "a pin" && c.want == "main" {
				wantErr = tenant.ErrMismatch
			}
			if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
				t.Errorf("%s, from %s: %v", name, from, err)
			}
			if wantErr != nil {
				leadsNowhere(t, got)
				continue
			}
			wantID(t, got, c.want)
			if s := scope.From(tenant.Ctx(got, "other")); !s.Conflicted {
				t.Errorf("%s, from %s: is not pinned", name, from)
			}
		}
	}
}

// A worker whose context is pinned keeps its pin, whatever the carrier says.
func TestExtractUnderPin(t *testing.T) {
	pinned := tenant.Pin(context.Background(), "acme")
	ctx, err := tenant.Extract(pinned, tenant.MapCarrier{tenant.CarrierKey: "bravo"})
	if !errors.Is(err, tenant.ErrMismatch) || !strings.Contains(err.Error(), `"acme"`) || !strings.Contains(err.Error(), `"bravo"`) {
		t.Errorf("another tenant: %v", err)
	}
	wantID(t, tenant.Ctx(ctx, "acme"), "") // nothing undoes a conflict

	for name, carrier := range map[string]tenant.MapCarrier{
		"missing": {},
		"invalid": {tenant.CarrierKey: "a/b"},
		"main":    {tenant.CarrierKey: "_main"},
	} {
		ctx, err := tenant.Extract(pinned, carrier)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		leadsNowhere(t, ctx)
		leadsNowhere(t, tenant.Ctx(ctx, "bravo"))
		if !scope.From(tenant.Main(ctx)).Main {
			t.Errorf("%s: the worker can't mean main", name)
		}
	}

	conflict := tenant.Ctx(pinned, "bravo")
	ctx, err = tenant.Extract(conflict, tenant.MapCarrier{tenant.CarrierKey: "acme"})
	if !errors.Is(err, tenant.ErrMismatch) {
		t.Errorf("from a conflict: %v", err)
	}
	leadsNowhere(t, ctx)
	ctx, err = tenant.Extract(conflict, tenant.MapCarrier{})
	if !errors.Is(err, tenant.ErrMissing) {
		t.Errorf("from a conflict, nothing: %v", err)
	}
	leadsNowhere(t, tenant.Main(ctx))
}

// What was refused on one side is not taken for something else on the next.
func TestExtractedNowhereIsNotInjected(t *testing.T) {
	for _, carrier := range []tenant.MapCarrier{{}, {tenant.CarrierKey: "a/b"}, {tenant.CarrierKey: "_main"}} {
		ctx, _ := tenant.Extract(tenant.Main(context.Background()), carrier)
		next := tenant.MapCarrier{}
		if err := tenant.Inject(ctx, next); !errors.Is(err, tenant.ErrMissing) {
			t.Errorf("%v: %v", carrier, err)
		}
		if len(next) != 0 {
			t.Errorf("%v: sent on %v", carrier, next)
		}
	}
}

// The key has to survive HTTP, which ignores its case, and gRPC, whose keys are
// lower-case, whose binary ones end in "-bin", and which keeps "grpc-".
func TestCarrierKey(t *testing.T) {
	key := tenant.CarrierKey
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
		strings.HasSuffix(key, "-bin") || strings.HasPrefix(key, "grpc-") {
		t.Error(key)
	}
	if err := tenant.Validate(scope.MainName); err == nil {
		t.Error("a tenant can have the main database's name")
	}
}

// What Inject takes Extract gives back; what it refuses Extract refuses too,
// however the carrier was before and whatever happened to the key's case.
func TestCarrierRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		spelling := rapid.SampledFrom([]string{tenant.CarrierKey, "Tenancy-Tenant", "TENANCY-TENANT", "other"})
		id := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_-]{0,62}`), rapid.String(),
			rapid.SampledFrom([]string{"main", "_main", "acme"}))

		ctx := context.Background()
		for range rapid.IntRange(0, 4).Draw(rt, "steps") {
			switch rapid.IntRange(0, 2).Draw(rt, "step") {
			case 0:
				ctx = tenant.Ctx(ctx, id.Draw(rt, "id"))
			case 1:
				ctx = tenant.Pin(ctx, id.Draw(rt, "id"))
			case 2:
				ctx = tenant.Main(ctx)
			}
		}
		before := rapid.MapOf(spelling, id).Draw(rt, "before")
		var carrier tenant.Carrier
		switch rapid.IntRange(0, 2).Draw(rt, "kind") {
		case 0:
			carrier = tenant.MapCarrier(before)
		case 1:
			h := http.Header{}
			for k, v := range before {
				h.Add(k, v)
			}
			carrier = headers(h)
		case 2:
			m := &message{}
			for k, v := range before {
				m.list = append(m.list, [2]string{k, v})
			}
			carrier = m
		}

		injected := tenant.Inject(ctx, carrier)
		if m, ok := carrier.(tenant.MapCarrier); ok && rapid.Bool().Draw(rt, "over HTTP") {
			h := http.Header{}
			for k, v := range m {
				h.Add(k, v)
			}
			carrier = headers(h)
		}
		got, err := tenant.Extract(context.Background(), carrier)
		want, ok := tenant.ID(ctx)
		switch {
		case injected != nil:
			if err == nil || errors.Is(err, tenant.ErrMain) {
				rt.Fatalf("refused (%v), but extracted: %+v, %v", injected, scope.From(got), err)
			}
			leadsNowhere(rt, got)
		case ok:
			if id, _ := tenant.ID(got); id != want || err != nil {
				rt.Fatalf("%q became %q, %v", want, id, err)
			}
		default:
			if !scope.From(ctx).Main || !errors.Is(err, tenant.ErrMain) {
				rt.Fatalf("%+v became %+v, %v", scope.From(ctx), scope.From(got), err)
			}
			leadsNowhere(rt, got)
		}
	})
}

// Whatever is written into a carrier, Extract pins the one valid id that it
// names, or leads nowhere.
func FuzzExtract(f *testing.F) {
	for _, key := range []string{tenant.CarrierKey, "Tenancy-Tenant", "tenancy-tenant ", "tenancy_tenant", ""} {
		for _, value := range []string{"acme", "main", "_main", "", "a\x00", "é", strings.Repeat("a", 64)} {
			f.Add(key, value, "Tenancy-Tenant", "bravo")
			f.Add(key, value, "", "")
		}
	}
	f.Fuzz(func(t *testing.T, key, value, key2, value2 string) {
		carrier := &message{list: [][2]string{{key, value}, {key2, value2}}}
		var ours []string
		for _, h := range carrier.list {
			if strings.EqualFold(h[0], tenant.CarrierKey) {
				ours = append(ours, h[1])
			}
		}
		ctx, err := tenant.Extract(tenant.Ctx(context.Background(), "before"), carrier)
		if len(ours) == 1 && tenant.Validate(ours[0]) == nil {
			if err != nil {
				t.Fatal(err)
			}
			wantID(t, ctx, ours[0])
			return
		}
		if err == nil {
			t.Fatalf("%q: extracted %+v", carrier.list, scope.From(ctx))
		}
		leadsNowhere(t, ctx)
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("a control character in %q", err)
		}
	})
}

// Workers may read one message side by side.
func TestExtractSideBySide(t *testing.T) {
	carrier := tenant.MapCarrier{}
	if err := tenant.Inject(tenant.Ctx(context.Background(), "acme"), carrier); err != nil {
		t.Fatal(err)
	}
	base := tenant.Ctx(context.Background(), "before")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				ctx, err := tenant.Extract(base, carrier)
				if id, _ := tenant.ID(ctx); err != nil || id != "acme" {
					t.Errorf("%q, %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	wantID(t, base, "before")
}
