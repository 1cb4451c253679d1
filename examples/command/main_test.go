package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const asCommand = "SHOP_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "1" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

func shop(t *testing.T, data string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append(args, "--data", data)...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=10")
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.NotContains(t, string(b), "DATA RACE")
	return string(b), cmd.ProcessState.ExitCode()
}

func TestShop(t *testing.T) {
	data := t.TempDir()
	ok := func(args ...string) string {
		t.Helper()
		out, code := shop(t, data, args...)
		require.Zero(t, code, "%v: %s", args, out)
		return out
	}
	out, code := shop(t, data, "list")
	require.Equal(t, 1, code)
	require.Equal(t, "shop: the catalog's tables are missing or out of date; run `shop migrate`\n", out)

	require.Contains(t, ok("migrate"), "main: version 0 to 1")
	require.Equal(t, "acme is active on disk, at version 2\n", ok("signup", "acme", "--label", "plan=gold"))
	require.Equal(t, "TENANT  id  item               price  note\nacme    1   a welcome to acme  0\n", ok("exec", "SELECT * FROM orders"))
	ok("exec", "INSERT INTO orders VALUES (7, 'anvil', 90, '')", "--write", "--force")
	ok("status")
	require.Contains(t, ok("verify"), "0 drifts")

	out, code = shop(t, data, "reset")
	require.Equal(t, 1, code)
	require.Contains(t, out, "there is no terminal to ask on")
	require.Equal(t, "the main database and 1 tenant are as new\n", ok("reset", "--force"))
	require.Equal(t, "TENANT  item\nacme    a welcome to acme\n", ok("exec", "SELECT item FROM orders"))
	require.Contains(t, ok("list"), "plan=gold")
	require.NotContains(t, ok("doctor"), "FAIL")
	require.True(t, strings.Contains(ok("--help"), "reset "), "the command reset")
}
