package testsqlite

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"gorm.io/gorm"

	dialect "github.com/glebarez/sqlite"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

const (
	runPrefix      = "run-"
	keptPrefix     = "kept-"
	templatePrefix = "template-"
	lockSuffix     = ".lock"

	// keptTime is how long a kept database stays at most.
	keptTime = 24 * time.Hour
	// templateTime is how long a template stays that nobody uses.
	templateTime = 7 * 24 * time.Hour
)

// What the names of the kit's own files look like. Others are left alone,
// whatever they begin with.
var (
	runName      = regexp.MustCompile(`^` + runPrefix + `[a-z2-7]{12}(` + regexp.QuoteMeta(lockSuffix) + `)?$`)
	keptName     = regexp.MustCompile(`^` + keptPrefix + `[0-9a-f]{12}-[a-z2-7]{12}$`)
	templateName = regexp.MustCompile(`^` + templatePrefix + `[0-9a-f]{20}\.db$`)
)

// server is one run: a directory whose lock is held for as long as the process
// lives.
type server struct {
	dir  string // of all runs
	run  string // the directory of this one
	id   string
	pkg  string
	lock *lock
	last atomic.Int64 // number of the last file
}

// packageKey stands for the package whose tests run: go test runs them in the
// package's directory.
func packageKey() string {
	wd, _ := os.Getwd() // without one, all such packages are the same
	sum := sha256.Sum256([]byte(wd + "\x00" + filepath.Base(os.Args[0])))
	return hex.EncodeToString(sum[:6])
}

// begin makes the run's directory. Its lock comes first, so that nobody ever
// sees one of a live run that is not locked.
func (s *server) begin(ctx context.Context) (err error) {
	s.id = strings.ToLower(rand.Text()[:12])
	s.run = filepath.Join(s.dir, runPrefix+s.id)
	if s.lock, err = acquire(ctx, s.run+lockSuffix); err != nil {
		return err
	}
	if err := os.Mkdir(s.run, 0o700); err != nil {
		return errors.Join(err, s.lock.release())
	}
	return nil
}

// Close implements [tenancytest.Server].
func (s *server) Close(context.Context) error {
	err := os.RemoveAll(s.run)
	if err = errors.Join(err, s.lock.release()); err != nil {
		return fmt.Errorf("testsqlite: %w", err)
	}
	return nil
}

// Engine implements [tenancytest.Server].
func (s *server) Engine() tenancy.Engine { return tenancysqlite.Engine{} }

// Dialector implements [tenancytest.Server].
func (s *server) Dialector(pool gorm.ConnPool) gorm.Dialector { return &dialect.Dialector{Conn: pool} }

// sweep removes what dead runs have left, what was kept long enough, and
// templates that nobody uses any more.
func (s *server) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(s.dir, name)
		switch {
		case runName.MatchString(name):
			errs = append(errs, s.sweepRun(strings.TrimSuffix(path, lockSuffix)))
		case keptName.MatchString(name):
			errs = append(errs, s.sweepKept(path))
		case templateName.MatchString(name):
			errs = append(errs, sweepTemplate(ctx, path))
		case templateName.MatchString(strings.TrimSuffix(name, lockSuffix)):
			// Of a process that died while it had the lock, or one that has it.
			l, err := tryAcquire(path)
			if l != nil {
				err = l.release()
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *server) sweepRun(dir string) error {
	if dir == s.run {
		return nil
	}
	l, err := tryAcquire(dir + lockSuffix)
	if err != nil || l == nil {
		return err
	}
	// The directory goes first: one without a lock can be of a dead run only.
	return errors.Join(os.RemoveAll(dir), l.release())
}

// sweepKept removes the directory of kept databases whose name is
// kept-PACKAGE-RUN, if that is this package's, or old, and the run is over.
func (s *server) sweepKept(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return ignore(err, fs.ErrNotExist)
	}
	pkg, run, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), keptPrefix), "-")
	if pkg != s.pkg && time.Since(info.ModTime()) < keptTime || run == s.id {
		return nil
	}
	l, err := tryAcquire(filepath.Join(s.dir, runPrefix+run+lockSuffix))
	if err != nil || l == nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), l.release())
}

func sweepTemplate(ctx context.Context, path string) error {
	old := func() (bool, error) {
		info, err := os.Stat(path)
		return err == nil && time.Since(info.ModTime()) > templateTime, ignore(err, fs.ErrNotExist)
	}
	if is, err := old(); err != nil || !is {
		return err
	}
	l, err := acquire(ctx, path+lockSuffix)
	if err != nil {
		return err
	}
	is, err := old() // somebody may have begun to use it
	if is {
		err = os.Remove(path)
	}
	return errors.Join(err, l.release())
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}
