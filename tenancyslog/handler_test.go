package tenancyslog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gorm-tenancy/tenancy/tenancyslog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// noTime makes lines that can be compared.
func noTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

func logger(w io.Writer, opts *tenancyslog.Options) *slog.Logger {
	return slog.New(tenancyslog.NewHandler(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: noTime}), opts))
}

// inTenant hands each record on as if its call had passed a tenant's context.
type inTenant struct{ slog.Handler }

func (h inTenant) Handle(_ context.Context, r slog.Record) error {
	return h.Handler.Handle(tenant.Ctx(context.Background(), "acme"), r)
}
func (h inTenant) WithAttrs(a []slog.Attr) slog.Handler { return inTenant{h.Handler.WithAttrs(a)} }
func (h inTenant) WithGroup(n string) slog.Handler      { return inTenant{h.Handler.WithGroup(n)} }

// The handler keeps slog's contract, with a tenant and without one, and the
// tenant is at the top level of every line.
func TestSlogContract(t *testing.T) {
	for name, wrap := range map[string]func(slog.Handler) slog.Handler{
		"no tenant": func(h slog.Handler) slog.Handler { return h },
		"a tenant":  func(h slog.Handler) slog.Handler { return inTenant{h} },
	} {
		t.Run(name, func(t *testing.T) {
			var buf bytes.Buffer
			slogtest.Run(t, func(*testing.T) slog.Handler {
				buf.Reset()
				return wrap(tenancyslog.NewHandler(slog.NewJSONHandler(&buf, nil), nil))
			}, func(t *testing.T) map[string]any {
				line := map[string]any{}
				require.NoError(t, json.Unmarshal(buf.Bytes(), &line))
				if name == "a tenant" {
					require.Equal(t, "acme", line["tenant"])
				} else {
					require.NotContains(t, line, "tenant")
				}
				return line
			})
		})
	}
}

func TestHandler(t *testing.T) {
	bg := context.Background()
	acme := tenant.Ctx(bg, "acme")
	pinned := tenant.Pin(bg, "acme")
	for name, c := range map[string]struct {
		ctx  context.Context
		log  func(*slog.Logger) *slog.Logger
		want string
	}{
		"a tenant":              {acme, nil, `msg=m a=1 tenant=acme`},
		"a pinned one":          {pinned, nil, `msg=m a=1 tenant=acme`},
		"called main":           {tenant.Ctx(bg, "main"), nil, `msg=m a=1 tenant=main`},
		"main":                  {tenant.Main(acme), nil, `msg=m a=1 tenant=_main`},
		"none":                  {bg, nil, `msg=m a=1`},
		"an invalid one":        {tenant.Ctx(bg, "a\nb"), nil, `msg=m a=1`},
		"a conflict":            {tenant.Ctx(pinned, "bravo"), nil, `msg=m a=1`},
		"main after a conflict": {tenant.Main(tenant.Ctx(pinned, "bravo")), nil, `msg=m a=1`},
		"attributes": {acme, func(l *slog.Logger) *slog.Logger { return l.With("b", 2) },
			`msg=m b=2 a=1 tenant=acme`},
		"no attributes": {acme, func(l *slog.Logger) *slog.Logger { return slog.New(l.Handler().WithAttrs(nil)) },
			`msg=m a=1 tenant=acme`},
		"a group": {acme, func(l *slog.Logger) *slog.Logger { return l.WithGroup("g") },
			`msg=m g.a=1 tenant=acme`},
		"an unnamed group": {acme, func(l *slog.Logger) *slog.Logger { return slog.New(l.Handler().WithGroup("")) },
			`msg=m a=1 tenant=acme`},
		"groups and attributes": {acme, func(l *slog.Logger) *slog.Logger {
			return l.With("b", 2).WithGroup("g").With("c", 3).With("d", 4).WithGroup("h").WithGroup("i").With("e", 5)
		}, `msg=m b=2 g.c=3 g.d=4 g.h.i.e=5 g.h.i.a=1 tenant=acme`},
		"groups without a tenant": {bg, func(l *slog.Logger) *slog.Logger { return l.With("b", 2).WithGroup("g").With("c", 3) },
			`msg=m b=2 g.c=3 g.a=1`},
	} {
		var buf bytes.Buffer
		l := logger(&buf, nil)
		if c.log != nil {
			l = c.log(l)
		}
		l.InfoContext(c.ctx, "m", "a", 1)
		require.Equal(t, c.want+"\n", buf.String(), name)
	}
}

// An id is a string, whatever it looks like.
func TestIDIsAString(t *testing.T) {
	var buf bytes.Buffer
	slog.New(tenancyslog.NewHandler(slog.NewJSONHandler(&buf, nil), nil)).
		InfoContext(tenant.Ctx(context.Background(), "0042"), "m")
	require.Contains(t, buf.String(), `"tenant":"0042"`)
}

func TestKey(t *testing.T) {
	ctx := tenant.Ctx(context.Background(), "acme")
	for key, want := range map[string]string{"": "tenant", "customer.id": "customer.id"} {
		var buf bytes.Buffer
		logger(&buf, &tenancyslog.Options{Key: key}).WithGroup("g").InfoContext(ctx, "m", "a", 1)
		require.Equal(t, "msg=m g.a=1 "+want+"=acme\n", buf.String())
	}
}

type failing struct{ slog.Handler }

var errFull = errors.New("disk full")

func (failing) Handle(context.Context, slog.Record) error { return errFull }

func TestForwards(t *testing.T) {
	ctx := tenant.Ctx(context.Background(), "acme")
	warn := tenancyslog.NewHandler(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn}), nil)
	for _, h := range []slog.Handler{warn, warn.WithGroup("g"), warn.WithAttrs([]slog.Attr{slog.Int("a", 1)})} {
		require.False(t, h.Enabled(ctx, slog.LevelInfo))
		require.True(t, h.Enabled(ctx, slog.LevelWarn))
	}
	h := tenancyslog.NewHandler(failing{slog.DiscardHandler}, nil)
	for _, ctx := range []context.Context{ctx, context.Background()} {
		require.ErrorIs(t, h.Handle(ctx, slog.Record{}), errFull)
	}
}

// A line with a tenant is the line without one, and the tenant at its end, for
// all loggers; and loggers made of one another don't disturb each other.
func TestLinesOnlyGainTheTenant(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var plain, with bytes.Buffer
		opts := &slog.HandlerOptions{ReplaceAttr: noTime}
		type pair struct{ plain, with *slog.Logger }
		loggers := []pair{{slog.New(slog.NewTextHandler(&plain, opts)), logger(&with, nil)}}
		attrs := func() []any {
			n := rapid.IntRange(0, 8).Draw(rt, "attrs")
			var list []any
			for range n {
				key := rapid.SampledFrom([]string{"a", "b", "tenant"}).Draw(rt, "key")
				switch rapid.IntRange(0, 2).Draw(rt, "value") {
				case 0:
					list = append(list, slog.Int(key, rapid.IntRange(0, 9).Draw(rt, "n")))
				case 1:
					list = append(list, slog.Group(key, slog.String("x", "y")))
				case 2:
					list = append(list, slog.Group(key)) // is left out
				}
			}
			return list
		}
		for range rapid.IntRange(0, 6).Draw(rt, "steps") {
			from := rapid.SampledFrom(loggers).Draw(rt, "from")
			if rapid.Bool().Draw(rt, "group") {
				name := rapid.SampledFrom([]string{"g", "h", ""}).Draw(rt, "name")
				loggers = append(loggers, pair{from.plain.WithGroup(name), from.with.WithGroup(name)})
			} else {
				list := attrs()
				loggers = append(loggers, pair{from.plain.With(list...), from.with.With(list...)})
			}
		}
		for _, l := range loggers {
			plain.Reset()
			with.Reset()
			list := attrs()
			l.plain.Info("m", list...)
			l.with.InfoContext(tenant.Ctx(context.Background(), "acme"), "m", list...)
			if want := strings.TrimSuffix(plain.String(), "\n") + " tenant=acme\n"; with.String() != want {
				rt.Fatalf("got  %swant %s", with.String(), want)
			}
		}
	})
}

// Loggers that are made of one, however deep, have their own groups.
func TestSiblings(t *testing.T) {
	var buf bytes.Buffer
	ctx := tenant.Ctx(context.Background(), "acme")
	parent := logger(&buf, nil)
	want := "msg=m "
	for _, name := range strings.Split("abcdefgh", "") {
		parent = parent.WithGroup(name)
		want += name + "."
		first, second := parent.WithGroup("first"), parent.WithGroup("second")
		firstOf := first.With("x", 1)
		second.InfoContext(ctx, "m", "y", 2)
		first.InfoContext(ctx, "m", "y", 2)
		firstOf.InfoContext(ctx, "m", "y", 2)
		require.Equal(t, want+"second.y=2 tenant=acme\n"+want+"first.y=2 tenant=acme\n"+
			want+"first.x=1 "+strings.TrimPrefix(want, "msg=m ")+"first.y=2 tenant=acme\n", buf.String())
		buf.Reset()
	}
}

// So do those with attributes of one group.
func TestSiblingsInAGroup(t *testing.T) {
	var buf bytes.Buffer
	ctx := tenant.Ctx(context.Background(), "acme")
	parent := logger(&buf, nil).WithGroup("g")
	want := "msg=m"
	for range 8 {
		first, second := parent.With("b", 1), parent.With("b", 2)
		first.InfoContext(ctx, "m")
		second.InfoContext(ctx, "m")
		require.Equal(t, want+" g.b=1 tenant=acme\n"+want+" g.b=2 tenant=acme\n", buf.String())
		buf.Reset()
		parent, want = parent.With("a", 0), want+" g.a=0"
	}
}

// A record that another handler has too is left as it is, however many
// attributes it has.
func TestRecordIsNotChanged(t *testing.T) {
	ctx := tenant.Ctx(context.Background(), "acme")
	for n := range 20 {
		r := slog.Record{Message: "m"}
		var want strings.Builder
		want.WriteString("level=INFO msg=m")
		for range n {
			r.AddAttrs(slog.Int("a", 1)) // one by one, so that there is room for more
			want.WriteString(" a=1")
		}
		for range 2 {
			var buf bytes.Buffer
			require.NoError(t, tenancyslog.NewHandler(slog.NewTextHandler(&buf, nil), nil).Handle(ctx, r))
			require.Equal(t, want.String()+" tenant=acme\n", buf.String())
			require.Equal(t, n, r.NumAttrs())
		}
	}
}

// Two tenants' requests use one logger.
func TestSideBySide(t *testing.T) {
	var mu sync.Mutex
	var buf bytes.Buffer
	l := logger(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(p)
	}), nil).WithGroup("g").With("b", 2)
	var wg sync.WaitGroup
	for _, id := range []string{"acme", "bravo"} {
		wg.Go(func() {
			for range 100 {
				l.With("of", id).InfoContext(tenant.Ctx(context.Background(), id), "m", "also", id)
			}
		})
	}
	wg.Wait()
	for _, id := range []string{"acme", "bravo"} {
		require.Equal(t, 100, strings.Count(buf.String(), "msg=m g.b=2 g.of="+id+" g.also="+id+" tenant="+id+"\n"))
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// sink takes every record and allocates nothing: slog's own handlers have pools
// that lose things under the race detector.
type sink struct{}

func (sink) Enabled(context.Context, slog.Level) bool  { return true }
func (sink) Handle(context.Context, slog.Record) error { return nil }
func (s sink) WithAttrs([]slog.Attr) slog.Handler      { return s }
func (s sink) WithGroup(string) slog.Handler           { return s }

// The tenant costs no allocation; with open groups, one for their attributes.
func TestAllocs(t *testing.T) {
	ctx := tenant.Ctx(context.Background(), "acme")
	base := sink{}
	allocs := func(h slog.Handler, ctx context.Context) float64 {
		l := slog.New(h)
		return testing.AllocsPerRun(200, func() { l.LogAttrs(ctx, slog.LevelInfo, "m", slog.Int("a", 1)) })
	}
	plain := allocs(base, ctx)
	h := tenancyslog.NewHandler(base, nil)
	require.Equal(t, plain, allocs(h, ctx), "a tenant")
	require.Equal(t, plain, allocs(h.WithGroup("g"), context.Background()), "a group, no tenant")
	require.LessOrEqual(t, allocs(h.WithGroup("g").WithGroup("h").WithAttrs([]slog.Attr{slog.Int("b", 2)}), ctx), plain+1, "groups")
}
