package tenancyriver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	tenancyriver "github.com/gorm-tenancy/tenancy/contrib/river"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func middleware(t *testing.T, cfg tenancyriver.Config) *tenancyriver.Middleware {
	t.Helper()
	m, err := tenancyriver.New(cfg)
	require.NoError(t, err)
	return m
}

func TestNewRefuses(t *testing.T) {
	_, err := tenancyriver.New(tenancyriver.Config{Snooze: -1})
	require.ErrorContains(t, err, "Snooze is negative")
	_, err = tenancyriver.New(tenancyriver.Config{Main: []string{"sweep", ""}})
	require.ErrorContains(t, err, "a kind without a name")
}

// insert returns what River would write.
func insert(m *tenancyriver.Middleware, ctx context.Context, jobs ...*rivertype.JobInsertParams) (inserted bool, err error) {
	_, err = m.InsertMany(ctx, jobs, func(context.Context) ([]*rivertype.JobInsertResult, error) {
		inserted = true
		return nil, nil
	})
	return inserted, err
}

func TestInsertRefuses(t *testing.T) {
	m := middleware(t, tenancyriver.Config{Main: []string{"sweep"}})
	ctx := t.Context()
	for name, tc := range map[string]struct {
		ctx      context.Context
		metadata string
		want     error
	}{
		"no tenant":        {ctx, "{}", tenant.ErrMissing},
		"invalid tenant":   {tenant.Ctx(ctx, "a/b"), "{}", tenant.ErrInvalid},
		"two tenants":      {tenant.Ctx(tenant.Pin(ctx, "acme"), "bravo"), "{}", tenant.ErrMismatch},
		"main":             {tenant.Main(ctx), "{}", tenant.ErrMain},
		"the caller's own": {ctx, `{"tenancy-tenant": "acme"}`, tenant.ErrMissing},
		"metadata":         {tenant.Ctx(ctx, "acme"), `[1]`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			good := &rivertype.JobInsertParams{Kind: "sweep", Metadata: []byte("{}")}
			bad := &rivertype.JobInsertParams{Kind: "invoice", Metadata: []byte(tc.metadata)}
			inserted, err := insert(m, tc.ctx, good, bad)
			require.Error(t, err)
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			assert.ErrorContains(t, err, `tenancyriver: a job of kind "`)
			assert.False(t, inserted, "none of the batch is")
		})
	}
}

func TestInsertMarks(t *testing.T) {
	m := middleware(t, tenancyriver.Config{Main: []string{"sweep"}})
	for metadata, want := range map[string]string{
		"":     `{"tenancy-tenant":"acme"}`,
		"null": `{"tenancy-tenant":"acme"}`,
		`{"river:x":1,"big":12345678901234567890}`:              `{"big":12345678901234567890,"river:x":1,"tenancy-tenant":"acme"}`,
		`{"tenancy-tenant":"bravo"}`:                            `{"tenancy-tenant":"acme"}`,
		`{"Tenancy-Tenant":"bravo","tenancy-tenant":"charlie"}`: `{"tenancy-tenant":"acme"}`,
	} {
		job := &rivertype.JobInsertParams{Kind: "invoice", Metadata: []byte(metadata)}
		inserted, err := insert(m, tenant.Pin(t.Context(), "acme"), job)
		require.NoError(t, err)
		require.True(t, inserted)
		assert.Equal(t, want, string(job.Metadata))
	}
	for _, ctx := range []context.Context{t.Context(), tenant.Pin(t.Context(), "acme"), tenant.Main(t.Context())} {
		job := &rivertype.JobInsertParams{Kind: "sweep"}
		_, err := insert(m, ctx, job)
		require.NoError(t, err)
		assert.JSONEq(t, `{"tenancy-tenant":"_main"}`, string(job.Metadata))
	}
}

// TestUniqueKeys shows that unique jobs are unique for their tenant.
func TestUniqueKeys(t *testing.T) {
	m := middleware(t, tenancyriver.Config{Main: []string{"sweep"}})
	key := func(ctx context.Context, kind, given string) string {
		job := &rivertype.JobInsertParams{Kind: kind, UniqueKey: []byte(given)}
		_, err := insert(m, ctx, job)
		require.NoError(t, err)
		return string(job.UniqueKey)
	}
	acme, bravo := tenant.Ctx(t.Context(), "acme"), tenant.Ctx(t.Context(), "bravo")
	assert.Equal(t, key(acme, "invoice", "k"), key(acme, "invoice", "k"))
	assert.NotEqual(t, key(acme, "invoice", "k"), key(bravo, "invoice", "k"))
	assert.NotEqual(t, key(acme, "invoice", "k"), key(acme, "invoice", "l"))
	assert.NotEqual(t, key(tenant.Ctx(t.Context(), "a"), "invoice", "bk"), key(tenant.Ctx(t.Context(), "ab"), "invoice", "k"))
	assert.Equal(t, "k", key(acme, "sweep", "k"), "main's are unique among all")
	assert.Empty(t, key(acme, "invoice", ""), "what is not unique does not become so")
}

func TestWorkRefuses(t *testing.T) {
	m := middleware(t, tenancyriver.Config{Main: []string{"sweep"}})
	for name, tc := range map[string]struct {
		kind, metadata string
		pinned         string // what River's own context is pinned to
		want           error
	}{
		"no metadata":             {"invoice", "", "", tenant.ErrMissing},
		"no tenant":               {"invoice", "{}", "", tenant.ErrMissing},
		"no text":                 {"invoice", `{"tenancy-tenant":7}`, "", tenant.ErrMissing},
		"empty":                   {"invoice", `{"tenancy-tenant":""}`, "", tenant.ErrMissing},
		"invalid":                 {"invoice", `{"tenancy-tenant":"a/b"}`, "", tenant.ErrInvalid},
		"twice":                   {"invoice", `{"tenancy-tenant":"acme","Tenancy-Tenant":"bravo"}`, "", tenant.ErrMismatch},
		"main's":                  {"invoice", `{"tenancy-tenant":"_main"}`, "", tenant.ErrMain},
		"another's context":       {"invoice", `{"tenancy-tenant":"acme"}`, "bravo", tenant.ErrMismatch},
		"a tenant's of main":      {"sweep", `{"tenancy-tenant":"acme"}`, "", tenant.ErrMismatch},
		"main's without its mark": {"sweep", `{}`, "", tenant.ErrMissing},
		"no object":               {"invoice", `"acme"`, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if tc.pinned != "" {
				ctx = tenant.Pin(ctx, tc.pinned)
			}
			job := &rivertype.JobRow{ID: 7, Kind: tc.kind, Metadata: []byte(tc.metadata)}
			err := m.Work(ctx, job, func(context.Context) error {
				t.Error("the worker began")
				return nil
			})
			require.ErrorContains(t, err, "tenancyriver: job 7 of kind")
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			assert.False(t, errors.As(err, new(*river.JobCancelError)), "River tries it again")
		})
	}
}

func TestWorkPins(t *testing.T) {
	m := middleware(t, tenancyriver.Config{Main: []string{"sweep"}})
	err := m.Work(t.Context(), &rivertype.JobRow{Kind: "invoice", Metadata: []byte(`{"tenancy-tenant":"acme","n":1}`)},
		func(ctx context.Context) error {
			id, ok := tenant.ID(ctx)
			assert.True(t, ok)
			assert.Equal(t, "acme", id)
			_, ok = tenant.ID(tenant.Ctx(ctx, "bravo"))
			assert.False(t, ok, "it is pinned")
			return nil
		})
	require.NoError(t, err)
	err = m.Work(t.Context(), &rivertype.JobRow{Kind: "sweep", Metadata: []byte(`{"tenancy-tenant":"_main"}`)},
		func(ctx context.Context) error {
			assert.Equal(t, tenant.Main(t.Context()), ctx)
			return nil
		})
	require.NoError(t, err)
}

func TestSnooze(t *testing.T) {
	job := &rivertype.JobRow{Kind: "invoice", Metadata: []byte(`{"tenancy-tenant":"acme"}`)}
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		check, work error
		snooze      time.Duration // 0 for none
		want        error
	}{
		"served":               {nil, nil, 0, nil},
		"suspended":            {tenancy.ErrTenantSuspended, boom, time.Hour, tenancy.ErrTenantSuspended},
		"behind":               {fmt.Errorf("open: %w", tenancy.ErrTenantBehind), boom, time.Hour, tenancy.ErrTenantBehind},
		"unknown":              {tenancy.ErrTenantNotFound, boom, 0, tenancy.ErrTenantNotFound},
		"down":                 {tenancy.ErrUnavailable, boom, 0, tenancy.ErrUnavailable},
		"suspended meanwhile":  {nil, tenancy.ErrTenantSuspended, time.Hour, tenancy.ErrTenantSuspended},
		"failed":               {nil, boom, 0, boom},
		"the worker's snooze":  {nil, errors.Join(river.JobSnooze(time.Second), tenancy.ErrTenantSuspended), time.Second, nil},
		"the worker's verdict": {nil, river.JobCancel(tenancy.ErrTenantSuspended), 0, tenancy.ErrTenantSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			m := middleware(t, tenancyriver.Config{Snooze: time.Hour, Check: func(ctx context.Context, id string) error {
				got, _ := tenant.ID(ctx)
				assert.Equal(t, "acme", id)
				assert.Equal(t, "acme", got)
				return tc.check
			}})
			err := m.Work(t.Context(), job, func(context.Context) error {
				assert.NoError(t, tc.check, "the worker began")
				return tc.work
			})
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			var snooze *river.JobSnoozeError
			if tc.snooze == 0 {
				assert.False(t, errors.As(err, &snooze), "%v", err)
				return
			}
			require.ErrorAs(t, err, &snooze)
			assert.Equal(t, tc.snooze, snooze.Duration)
		})
	}
}

// A job of the main database has no tenant to wait for: to snooze it because of one
// of the tenants that it looks after would repeat it for the others, for ever.
func TestMainIsNotSnoozed(t *testing.T) {
	m := middleware(t, tenancyriver.Config{Main: []string{"sweep"}})
	for _, reason := range []error{tenancy.ErrTenantSuspended, tenancy.ErrTenantBehind} {
		err := m.Work(t.Context(), &rivertype.JobRow{Kind: "sweep", Metadata: []byte(`{"tenancy-tenant":"_main"}`)},
			func(context.Context) error { return fmt.Errorf("bravo: %w", reason) })
		require.ErrorIs(t, err, reason)
		assert.False(t, errors.As(err, new(*river.JobSnoozeError)), "%v", err)
	}
}

// FuzzMetadata shows that a job is worked for the tenant that it was inserted
// for, whatever else its metadata says, or not at all.
func FuzzMetadata(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"a":1}`, `{"tenancy-tenant":"bravo"}`, `{"TENANCY-TENANT":["bravo"]}`, `{"tenancy-tenant":"a","tenancy-tenant":"b"}`, "[]"} {
		f.Add(s)
	}
	m, err := tenancyriver.New(tenancyriver.Config{})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, metadata string) {
		job := &rivertype.JobInsertParams{Kind: "invoice", Metadata: []byte(metadata)}
		if _, err := insert(m, tenant.Ctx(t.Context(), "acme"), job); err != nil {
			return
		}
		require.True(t, json.Valid(job.Metadata))
		err := m.Work(t.Context(), &rivertype.JobRow{Kind: "invoice", Metadata: job.Metadata}, func(ctx context.Context) error {
			id, _ := tenant.ID(ctx)
			require.Equal(t, "acme", id)
			return nil
		})
		require.NoError(t, err)
	})
}
