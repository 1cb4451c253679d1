package tenant_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gorm-tenancy/tenancy/internal/scope"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func wantID(t *testing.T, ctx context.Context, want string) {
	t.Helper()
	id, ok := tenant.ID(ctx)
	if id != want || ok != (want != "") {
		t.Errorf("ID = %q, %v; want %q", id, ok, want)
	}
}

func TestCtx(t *testing.T) {
	ctx := context.Background()
	wantID(t, ctx, "")
	a := tenant.Ctx(ctx, "a")
	wantID(t, a, "a")
	wantID(t, tenant.Ctx(a, "b"), "b")
	wantID(t, a, "a") // contexts don't change
	wantID(t, ctx, "")
	wantID(t, tenant.Ctx(a, ""), "")
	wantID(t, tenant.Ctx(a, "no such/id"), "")
	wantID(t, tenant.Ctx(tenant.Ctx(a, "!"), "b"), "b")
	child, cancel := context.WithCancel(a)
	defer cancel()
	wantID(t, child, "a")
}

func TestMainDatabase(t *testing.T) {
	a := tenant.Ctx(context.Background(), "a")
	main := tenant.Main(a)
	wantID(t, main, "")
	if !scope.From(main).Main {
		t.Error("Main does not mean the main database")
	}
	wantID(t, tenant.Ctx(main, "b"), "b")
	if tenant.Main(main) != main {
		t.Error("Main of Main is another context")
	}
}

func TestPin(t *testing.T) {
	a := tenant.Pin(context.Background(), "a")
	wantID(t, a, "a")
	wantID(t, tenant.Ctx(a, "a"), "a")
	wantID(t, tenant.Pin(a, "a"), "a")

	for name, ctx := range map[string]context.Context{
		"Ctx":            tenant.Ctx(a, "b"),
		"Pin":            tenant.Pin(a, "b"),
		"back again":     tenant.Ctx(tenant.Ctx(a, "b"), "a"),
		"then Main":      tenant.Main(tenant.Ctx(a, "b")),
		"empty":          tenant.Ctx(a, ""),
		"behind Main":    tenant.Ctx(tenant.Main(a), "b"),
		"case":           tenant.Ctx(a, "A"),
		"invalid":        tenant.Ctx(a, "b/"),
		"invalid Pin":    tenant.Pin(a, "b/"),
		"conflict first": tenant.Ctx(tenant.Ctx(a, "b"), "c"),
	} {
		wantID(t, ctx, "")
		s := scope.From(ctx)
		if !s.Conflicted || s.Pin != "a" {
			t.Errorf("%s: no conflict with the pin: %+v", name, s)
		}
		if s.Main {
			t.Errorf("%s: leads to the main database", name)
		}
	}
	if s := scope.From(tenant.Ctx(tenant.Ctx(a, "b"), "c")); s.Conflict != "b" {
		t.Errorf("the first conflict is the one to report, not %q", s.Conflict)
	}

	main := tenant.Main(a)
	wantID(t, main, "")
	if s := scope.From(main); s.Conflicted || !s.Main {
		t.Errorf("Main under a pin: %+v", s)
	}
	wantID(t, tenant.Ctx(main, "a"), "a")

	// An invalid id pins nothing, but is an error of its own.
	bad := tenant.Pin(context.Background(), "a/b")
	wantID(t, bad, "")
	if s := scope.From(bad); !s.Invalid || s.Pin != "" {
		t.Errorf("pinned an invalid id: %+v", s)
	}
}

func TestValidate(t *testing.T) {
	for _, id := range []string{"a", "Z", "0", "acme", "a-b_c", "01ARZ3NDEKTSV4RRFFQ69G5FAV",
		"123e4567-e89b-12d3-a456-426614174000", "org_2abcDEF", strings.Repeat("a", tenant.MaxLen)} {
		if err := tenant.Validate(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", "-a", "_a", "a b", "a.b", "a/b", "a\x00", "é", "a\n", "a\xff", "a:", "a'", "a@", "a[", "a`", "a{",
		strings.Repeat("a", tenant.MaxLen+1)} {
		err := tenant.Validate(id)
		if !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
			continue
		}
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == utf8.RuneError }) {
			t.Errorf("%q: the error has raw bytes: %q", id, err)
		}
	}
}

func TestIDDoesNotAllocate(t *testing.T) {
	ctx := tenant.Ctx(context.Background(), "acme")
	if n := testing.AllocsPerRun(100, func() { tenant.ID(ctx) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
