package main

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func TestRun(t *testing.T) {
	one, two := pgtest.Start(t), pgtest.Start(t)
	for _, test := range []struct {
		where    string
		clusters []*pgtest.Cluster
	}{
		{"on one server", []*pgtest.Cluster{one}},
		{"on two servers", []*pgtest.Cluster{one, two}},
	} {
		t.Run(test.where, func(t *testing.T) {
			var dsns []string
			for _, c := range test.clusters {
				dsns = append(dsns, c.DSN("postgres"))
			}
			var out bytes.Buffer
			require.NoError(t, run(&out, dsns), "%s", &out)
			for _, line := range []string{
				test.where,
				`acme: order 1 is "first order of acme", plan gold`,
				`bravo: order 1 is "first order of bravo", plan gold`,
				"bravo has 1 order",
				"refused, no tenant: tenancy: query: no tenant",
				"refused, bravo in acme's transaction: ",
				"refused, acme's row saved as bravo: ",
				"2 pools are open",
			} {
				require.Contains(t, out.String(), line)
			}
			for _, c := range test.clusters {
				var left int
				require.NoError(t, c.Admin(t).QueryRow(context.Background(),
					"SELECT count(*) FROM pg_database WHERE datname LIKE 'tenancy_example_%'").Scan(&left))
				require.Zero(t, left, "databases that were not dropped")
			}
		})
	}
}

func TestRunRefusesWithoutTheDSN(t *testing.T) {
	require.ErrorContains(t, run(&bytes.Buffer{}, nil), "name a server")
	err := run(&bytes.Buffer{}, []string{"host=x password=hunter2"})
	require.ErrorContains(t, err, "must be a URL")
	require.NotContains(t, err.Error(), "hunter2")
}
