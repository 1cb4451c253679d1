package testsqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a lock that another has is tried.
const lockPoll = 10 * time.Millisecond

// lock is a locked file; the kernel gives the lock back when the process dies.
// It works as tenancysqlite's, which is not for others.
type lock struct{ file *flock.Flock }

func acquire(ctx context.Context, path string) (*lock, error) {
	for {
		l := &lock{flock.New(path, flock.SetPermissions(0o600))}
		ok, err := l.file.TryLockContext(ctx, lockPoll)
		if err == nil && ok && l.named() {
			return l, nil
		}
		// Its last holder has removed the file that we waited for, or ctx is over.
		_ = l.file.Close()
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
	}
}

// tryAcquire returns nil if another has the lock.
func tryAcquire(path string) (*lock, error) {
	l := &lock{flock.New(path, flock.SetPermissions(0o600))}
	ok, err := l.file.TryLock()
	if err == nil && ok && l.named() {
		return l, nil
	}
	_ = l.file.Close()
	return nil, err
}

// named reports whether the locked file is still the one at its path.
func (l *lock) named() bool {
	locked, err := l.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(l.file.Path())
	return err == nil && os.SameFile(locked, there)
}

// release removes the file while it is locked, and unlocks it.
func (l *lock) release() error {
	err := os.Remove(l.file.Path())
	if runtime.GOOS == "windows" || errors.Is(err, fs.ErrNotExist) {
		err = nil // Windows may not remove what is open; the next run does
	}
	return errors.Join(err, l.file.Close())
}
