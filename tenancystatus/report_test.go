package tenancystatus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

func TestReportIsWhatStatsSay(t *testing.T) {
	a := newApp(t, 3, "north", "south")
	page := newPage(t, tenancystatus.Config{Plugin: a.plugin, Name: "app-1", Tenants: 2})
	a.ask(t, "t0", "t1", "t2", "t0", "t0")
	require.NoError(t, a.plugin.Drain(t.Context(), "t1"))
	require.Error(t, a.db.Exec("SELECT 1").Error, "no tenant")
	require.Error(t, a.in("nobody").Exec("SELECT 1").Error)
	a.ask(t, "t1")

	s, r := a.plugin.Stats(), page.Report()
	require.Equal(t, "app-1", r.Name)
	require.Equal(t, tenancystatus.Pools{
		Max: 1000, Open: 3, Conns: s.Conns, HitsTotal: s.Hits, MissesTotal: s.Misses, OpenedTotal: 4, OpenFailedTotal: 1, RefusedTotal: 1,
		EvictedTotal: map[tenancy.Cause]uint64{tenancy.CauseCapacity: 0, tenancy.CauseIdle: 0, tenancy.CauseEvicted: 1,
			tenancy.CauseChanged: 0, tenancy.CauseGone: 0, tenancy.CauseClosed: 0, tenancy.CauseSwept: 0},
	}, r.Pools)
	require.Equal(t, s.Hits+s.Misses, r.Recent.Statements, "all came after the first sample")
	require.Equal(t, s.Hits, r.Recent.Hits)
	require.EqualValues(t, 4, r.Recent.Opened)
	require.EqualValues(t, 1, r.Recent.OpenFailed)
	require.EqualValues(t, 1, r.Recent.Evicted)
	require.EqualValues(t, 1, r.Recent.Refused)
	require.Positive(t, r.Recent.Seconds)

	require.Equal(t, 2, r.ServersKnown)
	require.Len(t, r.Servers, 2)
	for _, got := range r.Servers {
		i := slices.IndexFunc(s.Servers, func(s tenancy.ServerStats) bool { return s.Server == got.Server })
		want := s.Servers[i]
		require.Equal(t, want.Conns, got.Conns)
		require.Equal(t, want.MaxConns, got.MaxConns)
		require.Equal(t, want.Idle, got.ConnsIdle)
		require.Equal(t, got.Conns, got.ConnsInUse+got.ConnsIdle+got.ConnsDialing)
		require.Equal(t, want.Dials, got.DialsTotal)
		require.Equal(t, want.Dials, got.Recent.Dials, "a server that is new began with none")
		require.Equal(t, want.Pools, got.Pools)
		require.True(t, got.Approximate)
		require.Nil(t, got.DownSince)
	}
	require.Equal(t, 3, r.TenantsAwake)
	require.Len(t, r.Tenants, 2)
	require.Contains(t, get(page, "GET", "/").Body.String(), "2 of 3")

	// What is sent decodes to what was meant.
	w := get(page, "GET", "/", "Accept", "application/json")
	var decoded tenancystatus.Report
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&decoded))
	require.Equal(t, r.Pools, decoded.Pools)
	require.Equal(t, r.Tenants, decoded.Tenants)
	require.Equal(t, r.History[0].Time.Round(0), decoded.History[0].Time)
	require.Equal(t, time.UTC, decoded.Time.Location())
}

func TestNoTenantIsListed(t *testing.T) {
	a := newApp(t, 2, "north")
	page := newPage(t, tenancystatus.Config{Plugin: a.plugin, Tenants: -1})
	a.ask(t, a.ids...)
	r := page.Report()
	require.Equal(t, 2, r.TenantsAwake)
	require.Equal(t, []tenancystatus.Tenant{}, r.Tenants)
	body := get(page, "GET", "/").Body.String()
	require.Contains(t, body, "2 awake. This page lists none.")
	require.NotContains(t, body, "t0")
}

// Lists are empty and not null, and the page says so in words.
func TestNothingYet(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin})
	body := get(page, "GET", "/?format=json").Body.String()
	for _, want := range []string{`"servers":[]`, `"tenants":[]`, `"history":[{`} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "null")
	body = get(page, "GET", "/").Body.String()
	for _, want := range []string{"No tenant has been awake yet.", "No server is known yet", "No tenant is awake.", "Nothing yet"} {
		require.Contains(t, body, want)
	}
}

// Servers without end make neither the page nor its memory grow.
func TestManyServers(t *testing.T) {
	names := make([]string, 40)
	for i := range names {
		names[i] = fmt.Sprint("server-", i)
	}
	a := newApp(t, len(names), names...)
	page := newPage(t, tenancystatus.Config{Plugin: a.plugin, Servers: 5, Interval: 100 * time.Millisecond, History: time.Second})
	a.ask(t, a.ids...)
	require.Eventually(t, func() bool {
		h := page.Report().History
		return h[len(h)-1].ServersKnown == 40
	}, 30*time.Second, 10*time.Millisecond)
	r := page.Report()
	require.Equal(t, 40, r.ServersKnown)
	require.Len(t, r.Servers, 5)
	for _, s := range r.History {
		require.LessOrEqual(t, len(s.Servers), 5)
	}
	require.Contains(t, get(page, "GET", "/").Body.String(), "5 of 40 servers")
}

// fields are the names of all fields of t and of what it holds.
func fields(t reflect.Type, into map[string]bool) {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		into[t.Name()+"."+name] = true
		fields(f.Type, into)
	}
}

// TestFieldNames keeps the names of JSON: users' programs read them. A name may be
// added, here and to the document.
func TestFieldNames(t *testing.T) {
	names := map[string]bool{}
	fields(reflect.TypeFor[tenancystatus.Report](), names)
	kept, err := os.ReadFile("testdata/fields.txt")
	require.NoError(t, err)
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	require.Equal(t, strings.Fields(string(kept)), all)

	doc, err := os.ReadFile("../docs/statuspage.md")
	require.NoError(t, err)
	for _, name := range all {
		_, field, _ := strings.Cut(name, ".")
		require.Regexp(t, "`"+regexp.QuoteMeta(field)+"`", string(doc), name)
		require.Regexp(t, `^[a-z]+(_[a-z]+)*$`, field)
	}
}

func TestEscapes(t *testing.T) {
	hostile := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</title></svg><style>*{display:none}</style>`,
		`' onmouseover='alert(1)`, `javascript:alert(1)`, "a\x00b\u2028c", `{{.Name}}`,
	}
	a := newApp(t, len(hostile), hostile...)
	page := newPage(t, tenancystatus.Config{Plugin: a.plugin, Name: `</h1><script>alert("name")</script>`})
	a.ask(t, a.ids...)
	body := get(page, "GET", "/").Body.String()
	for _, raw := range []string{"<script>alert", "<img", "</svg><style>", "' onmouseover"} {
		require.False(t, strings.Contains(body, raw), raw)
	}
	require.Equal(t, 1, strings.Count(body, "<script"))
	require.Equal(t, 1, strings.Count(body, "<style"))
	require.Contains(t, body, "&lt;script&gt;alert(1)&lt;/script&gt;")
	require.Contains(t, body, "{{.Name}}", "a name is no template")

	raw := get(page, "GET", "/?format=json").Body.Bytes()
	require.False(t, bytes.ContainsAny(raw, "<>"), "not even a browser that takes it for HTML runs it")
	var r tenancystatus.Report
	require.NoError(t, json.Unmarshal(raw, &r))
	var got []string
	for _, s := range r.Servers {
		got = append(got, s.Server)
	}
	require.ElementsMatch(t, hostile, got)
}
