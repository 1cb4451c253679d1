package pgtest

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// packaged says where packages put PostgreSQL's binaries. scripts/setup.sh
// looks in the same places.
var packaged = []string{
	"/usr/lib/postgresql/*/bin",            // Debian, Ubuntu
	"/usr/pgsql-*/bin",                     // the PostgreSQL project's RPMs
	"/opt/homebrew/opt/postgresql@*/bin",   // Homebrew
	"/usr/local/opt/postgresql@*/bin",      // Homebrew on Intel
	"/usr/local/pgsql/bin",                 // built from source
	"/Applications/Postgres.app/*/*/*/bin", // Postgres.app
}

// packagedBouncer does the same for pgbouncer. Debian's place is not on every
// user's PATH.
var packagedBouncer = []string{
	"/usr/sbin", // Debian, Ubuntu
	"/usr/bin",  // the PostgreSQL project's RPMs
	"/usr/local/sbin",
	"/usr/local/bin",
	"/opt/homebrew/bin",
}

var errNoBinaries = errors.New("PostgreSQL's initdb and postgres were not found")

// findBinaries returns a directory that holds both initdb and postgres, as
// initdb demands: PATH's first, else the newest packaged version.
func findBinaries() (string, error) {
	return findIn(filepath.SplitList(os.Getenv("PATH")), packaged)
}

func findIn(path, patterns []string) (string, error) {
	for _, dir := range path {
		if !filepath.IsAbs(dir) { // "" and ".": not where a test should find its server
			continue
		}
		// PATH may hold links to single programs. Where they lead has the
		// rest, and the version that fits.
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, "initdb")); err == nil && complete(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
		if complete(dir) {
			return dir, nil
		}
	}
	for _, pattern := range patterns {
		dirs, _ := filepath.Glob(pattern) // fails on a bad pattern only
		slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
		for _, dir := range dirs {
			if complete(dir) {
				return dir, nil
			}
		}
	}
	return "", errNoBinaries
}

var errNoBouncer = errors.New("pgbouncer was not found")

// findBouncer returns the file of pgbouncer: PATH's first, else a packaged one.
func findBouncer() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), packagedBouncer...) {
		file := filepath.Join(dir, "pgbouncer")
		if filepath.IsAbs(dir) && executable(file) {
			return file, nil
		}
	}
	return "", errNoBouncer
}

var errNoBasebackup = errors.New("pg_basebackup was not found")

// findBasebackup looks for pg_basebackup beside the server's own programs: one
// of another version may not fit.
func findBasebackup(bin string) error {
	if !executable(filepath.Join(bin, "pg_basebackup")) {
		return fmt.Errorf("%w beside postgres in %s", errNoBasebackup, bin)
	}
	return nil
}

func complete(dir string) bool {
	return executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres"))
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

var number = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)

// version is the last number in dir's path; 9.6 is less than 15.
func version(dir string) float64 {
	all := number.FindAllString(dir, -1)
	if len(all) == 0 {
		return 0
	}
	v, _ := strconv.ParseFloat(all[len(all)-1], 64) // it is a number by its pattern
	return v
}
