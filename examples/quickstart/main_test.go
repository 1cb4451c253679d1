package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out bytes.Buffer
	require.NoError(t, run(&out), "%s", &out)
	for _, line := range []string{
		"acme's order 1: anvil, plan gold",
		"bravo's order 1: rocket",
		"plans, read as bravo: 1, from the main database",
		"acme has 2 orders, counted in a transaction",
		"no tenant:\n    tenancy: query: no tenant",
		"unknown tenant:\n    tenancy: open: tenant nobody: tenant not found",
		"its commit:\n    tenancy: create: tenant bravo: tenant mismatch",
		"2 of at most 1000 pools",
		"4 statements refused",
		"closed: 0 pools are open",
	} {
		require.Contains(t, out.String(), line)
	}
}
