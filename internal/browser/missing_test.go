package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/testmain"
)

func TestMissing(t *testing.T) {
	for require, fails := range map[string]bool{"": false, "0": false, "1": true} {
		t.Setenv(EnvRequire, require)
		var v testmain.Verdict
		missing(&v, errNone)
		said := v.Said(fails)
		if !strings.Contains(said, "apt-get install chromium") {
			t.Errorf("%s=%q: got %+v", EnvRequire, require, v)
		}
	}
}

// A program that is no browser fails the start, with what it said, and leaves
// nothing.
func TestStartFails(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	program := filepath.Join(t.TempDir(), "chromium")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho no such thing >&2\nexit 3\n"), 0o755))
	_, err := start(program)
	require.ErrorContains(t, err, "did not start")
	require.ErrorContains(t, err, "no such thing")
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestFindIn(t *testing.T) {
	root := t.TempDir()
	program := func(path, text string, mode os.FileMode) {
		t.Helper()
		file := filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), mode))
	}
	program("debian/chromium", "#!/bin/sh\nexec /usr/lib/chromium/chromium", 0o755)
	program("both/google-chrome", "ELF", 0o755)
	program("both/chromium", "ELF", 0o755)
	program("ubuntu/chromium-browser", "#!/bin/sh\nif ! [ -x /snap/bin/chromium ]; then echo >&2 install the snap; exit 1; fi\nexec /snap/bin/chromium", 0o755)
	program("ubuntu/google-chrome", "ELF", 0o755)
	program("text/chromium", "ELF", 0o644)
	program("snapd/snap", "ELF", 0o755)
	program("app/Chromium", "ELF", 0o755)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "dir/chromium"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "snap"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(root, "snapd/snap"), filepath.Join(root, "snap/chromium")))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "alternatives"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(root, "both/chromium"), filepath.Join(root, "alternatives/chromium")))

	for name, tt := range map[string]struct {
		dirs []string
		want string // "" is none
	}{
		"a wrapper":                  {[]string{"debian"}, "debian/chromium"},
		"Chromium before Chrome":     {[]string{"ubuntu", "both"}, "both/chromium"},
		"Ubuntu's script is none":    {[]string{"ubuntu"}, "ubuntu/google-chrome"},
		"a link":                     {[]string{"alternatives"}, "alternatives/chromium"},
		"no snap, directory or text": {[]string{"snap", "dir", "text", "ubuntu"}, "ubuntu/google-chrome"},
		"an application":             {[]string{"snap"}, "app/Chromium"},
		"PATH's first":               {[]string{"debian", "both"}, "debian/chromium"},
	} {
		t.Run(name, func(t *testing.T) {
			var dirs []string
			for _, dir := range tt.dirs {
				dirs = append(dirs, filepath.Join(root, dir))
			}
			got, err := findIn(dirs, []string{filepath.Join(root, "app/Chromium")})
			require.NoError(t, err)
			require.Equal(t, filepath.Join(root, tt.want), got)
		})
	}
	_, err := findIn([]string{"", ".", filepath.Join(root, "snap")}, nil)
	require.ErrorIs(t, err, errNone)
}
