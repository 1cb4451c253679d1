package tenancysqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a lock that another has is tried. There is no way to
// wait for one until a ctx ends.
const lockPoll = 10 * time.Millisecond

// lock is a name's lock, in all processes of the machine: the kernel gives it
// back when the process dies. Two in one process exclude each other as well
// (flock(2): it belongs to what open returned).
type lock struct{ file *flock.Flock }

// acquire locks the database name in dir.
func acquire(ctx context.Context, dir, name string) (*lock, error) {
	path := filepath.Join(dir, lockFile+name)
	for {
		l := &lock{flock.New(path)}
		ok, err := l.file.TryLockContext(ctx, lockPoll)
		if err != nil {
			_ = l.file.Close()
			return nil, err
		}
		if ok && l.named(path) {
			return l, nil
		}
		// Its last holder has removed the file that we waited for.
		_ = l.file.Close()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// named reports whether the locked file is still the one at path.
func (l *lock) named(path string) bool {
	locked, err := l.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(locked, there)
}

// release removes the file while it is locked, and unlocks it. Who waits for
// it finds that out, see acquire. Of nil there is nothing to release.
func (l *lock) release() error {
	if l == nil {
		return nil
	}
	err := os.Remove(l.file.Path())
	if runtime.GOOS == "windows" || errors.Is(err, fs.ErrNotExist) {
		err = nil // Windows may not remove what is open; the next session does
	}
	return errors.Join(err, l.file.Close())
}
