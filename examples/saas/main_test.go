package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRun starts the program as its user does, and stops it.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, in, []string{"-addr", "127.0.0.1:0", "-dir", t.TempDir(), "-operator-password", "sesame"})
		_ = in.Close()
	}()
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "%v", lines.Err())
	_, port, ok := strings.Cut(lines.Text(), "sign up at   http://localhost:")
	require.True(t, ok, lines.Text())
	require.True(t, lines.Scan())
	assert.Contains(t, lines.Text(), "http://operators.localhost:"+port+" (any name, password: the one that was given)")
	assert.NotContains(t, lines.Text(), "sesame", "a log keeps what is printed")
	s := &server{t: t, addr: "127.0.0.1:" + port}
	assert.Contains(t, s.user().get(s.at("", "/")).body, "Sign up")
	cancel()
	require.NoError(t, <-ended)
}

func TestRunRefuses(t *testing.T) {
	run := func(args ...string) error {
		return run(t.Context(), io.Discard, append(args, "-addr", "127.0.0.1:0"))
	}
	err := run("-dsn", "mysql://root:secret@127.0.0.1/main")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "secret")
	require.Error(t, run("-dir", "/dev/null/saas"))
	require.Error(t, run("-port", "1"))
	require.True(t, errors.Is(run("-h"), flag.ErrHelp))
}
