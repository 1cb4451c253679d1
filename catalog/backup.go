package catalog

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// BackupDir is a Config.Backup that writes each dump into a file of dir, named
// by the tenant's id and uid. It is there whole or not at all. dir is made with
// mode 0700 if it is missing.
func BackupDir(dir string) func(ctx context.Context, t Tenant, dump func(io.Writer) error) (string, error) {
	return func(_ context.Context, t Tenant, dump func(io.Writer) error) (_ string, err error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		name := t.UID
		if tenant.Validate(t.ID) == nil { // then nothing in it means anything to a file system
			name = t.ID + "-" + name
		}
		// By a name that nobody else has: a process that was taken for dead
		// may still write.
		f, err := os.CreateTemp(dir, ".backup-"+t.UID+"-*")
		if err != nil {
			return "", err
		}
		temp := f.Name()
		defer func() {
			if err != nil {
				_ = f.Close()
				_ = os.Remove(temp)
			}
		}()
		w := bufio.NewWriterSize(f, 1<<16)
		if err := dump(w); err != nil {
			return "", err
		}
		if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
			return "", err
		}
		name = filepath.Join(dir, name+".dump")
		if err := os.Rename(temp, name); err != nil {
			return "", err
		}
		if old, err := filepath.Glob(filepath.Join(dir, ".backup-"+t.UID+"-*")); err == nil {
			for _, left := range old { // by a process that died
				_ = os.Remove(left)
			}
		}
		return name, syncDir(dir)
	}
}

// syncDir makes a new name in dir durable, where a directory can be synced.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
