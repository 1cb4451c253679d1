package pgtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorm-tenancy/tenancy/internal/testmain"
)

func TestMissing(t *testing.T) {
	for _, tt := range []struct {
		require, dsn string
		fails        bool
	}{
		{"", "", false},
		{"0", "", false},
		{"1", "", true},
		{"1", "postgres://h/db", false},
	} {
		t.Setenv(EnvRequire, tt.require)
		t.Setenv(EnvDSN, tt.dsn)
		var v testmain.Verdict
		missing(&v, errNoBinaries)
		said := v.Said(tt.fails)
		if said == "" {
			t.Errorf("%+v: got %+v", tt, v)
		}
		for _, want := range []string{"initdb", "apt-get install postgresql", EnvDSN} {
			if !strings.Contains(said, want) {
				t.Errorf("%q does not say %q", said, want)
			}
		}
	}
}

func TestMissingBouncer(t *testing.T) {
	t.Setenv(EnvDSN, "")
	for require, fails := range map[string]bool{"": false, "1": true} {
		t.Setenv(EnvRequire, require)
		var v testmain.Verdict
		missing(&v, errNoBouncer)
		said := v.Said(fails)
		if !strings.Contains(said, "apt-get install pgbouncer") {
			t.Errorf("%s=%q: got %+v", EnvRequire, require, v)
		}
	}
	// Who names a server has none for a PgBouncer of ours.
	t.Setenv(EnvDSN, "postgres://h/db")
	var v testmain.Verdict
	if StartBouncer(&v, Shared(&v)); v.Skipped == "" || v.Failed != "" {
		t.Errorf("in front of somebody else's server: %+v", v)
	}
}

func TestMissingBasebackup(t *testing.T) {
	t.Setenv(EnvDSN, "")
	c := &Cluster{bin: t.TempDir(), tb: t}
	for require, fails := range map[string]bool{"": false, "1": true} {
		t.Setenv(EnvRequire, require)
		var v testmain.Verdict
		c.Standby(&v)
		said := v.Said(fails)
		for _, want := range []string{"pg_basebackup", c.bin, "client programs"} {
			if !strings.Contains(said, want) {
				t.Errorf("%s=%q: %q does not say %q", EnvRequire, require, said, want)
			}
		}
	}
	// Nor is there one of a server that somebody else runs.
	t.Setenv(EnvDSN, "postgres://h/db")
	var v testmain.Verdict
	if Shared(&v).Standby(&v); v.Skipped == "" || v.Failed != "" {
		t.Errorf("of somebody else's server: %+v", v)
	}
}

func TestBadDSNKeepsItsPassword(t *testing.T) {
	for _, dsn := range []string{
		"host=localhost password=hunter2",
		"mysql://root:hunter2@h/db",
		"postgres://u:hunter2@/db",
		"postgres://u:hunter2@h:x/db",
		"\x00hunter2",
	} {
		_, err := external(dsn)
		if err == nil {
			t.Errorf("%q was taken", dsn)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in %q", err)
		}
	}
}

func TestFindIn(t *testing.T) {
	root := t.TempDir()
	program := func(path ...string) {
		file := filepath.Join(append([]string{root}, path...)...)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []string{"9.6", "15", "16"} {
		program("pg", v, "bin", "initdb")
		program("pg", v, "bin", "postgres")
	}
	program("pg", "17", "bin", "initdb") // only half of it
	program("half", "initdb")
	program("whole", "initdb")
	program("whole", "postgres")
	program("links", "psql")
	if err := os.Symlink(filepath.Join(root, "pg/15/bin/initdb"), filepath.Join(root, "links/initdb")); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatal(err)
	}

	pattern := []string{"/pg/*/bin"}
	for name, tt := range map[string]struct {
		path, patterns []string
		want           string // "" is none
	}{
		"PATH first":              {[]string{"/half", "/whole"}, pattern, "/whole"},
		"link to one program":     {[]string{"/links"}, pattern, "/pg/15/bin"},
		"newest complete version": {[]string{"/half"}, pattern, "/pg/16/bin"},
		"nothing":                 {[]string{"/half"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			under := func(in []string) (out []string) {
				for _, s := range in {
					out = append(out, real+s)
				}
				return out
			}
			got, err := findIn(under(tt.path), under(tt.patterns))
			if tt.want == "" {
				if !errors.Is(err, errNoBinaries) {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if err != nil || got != real+tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := findIn([]string{"", "."}, nil); err == nil {
		t.Error("a relative directory of PATH was used")
	}
}
