//go:build unix

package testsqlite

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// A directory that others can write to is not used by itself.
func TestDirIsPrivate(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	s, err := Backend{}.Open(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close(t.Context()))
	dir := filepath.Join(tmp, "tenancytest-"+strconv.Itoa(os.Getuid()))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	require.NoError(t, os.Chmod(dir, 0o777))
	_, err = Backend{}.Open(t.Context())
	require.ErrorContains(t, err, "not a directory of this user alone")
	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Symlink(t.TempDir(), dir))
	_, err = Backend{}.Open(t.Context())
	require.ErrorContains(t, err, "not a directory of this user alone")
}
