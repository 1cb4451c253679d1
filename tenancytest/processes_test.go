package tenancytest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// An application's tests run in several processes at once, as go test runs
// packages, on one server and in one directory: they pass, and leave nothing
// but templates.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "orders.test")
	build := exec.Command("go", append([]string{"test", "-c", "-o", binary}, flags()...)...)
	build.Args = append(build.Args, "../examples/testing")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	tmp := filepath.Join(dir, "tmp")
	require.NoError(t, os.Mkdir(tmp, 0o700))
	for range 2 { // the templates are to be made, then they are there
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				var out bytes.Buffer
				run := exec.Command(binary, "-test.count=3", "-test.parallel=8", "-test.v")
				run.Env = append(os.Environ(), "TENANCY_TEST_DSN="+pg.DSN("postgres"), "TMPDIR="+tmp)
				run.Stdout, run.Stderr = &out, &out
				if err := run.Run(); err != nil || bytes.Contains(out.Bytes(), []byte("SKIP")) {
					t.Errorf("%v: %s", err, &out)
				}
			})
		}
		wg.Wait()
	}
	require.Empty(t, databases(t, pg))
	dirs, err := filepath.Glob(filepath.Join(tmp, "*"))
	require.NoError(t, err)
	require.Len(t, dirs, 1)
	require.Empty(t, files(t, dirs[0]))
}

// flags are those of this binary that matter to another: with the race
// detector, it runs under that too.
func flags() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	var flags []string
	for _, s := range info.Settings {
		if s.Key == "-race" || s.Key == "-gcflags" {
			flags = append(flags, s.Key+"="+s.Value)
		}
	}
	return flags
}
