package catalog

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

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
		// By a name of its own, so that the next try overwrites what a crash left.
		temp := filepath.Join(dir, ".backup-"+t.UID)
		f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return "", err
		}
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
		return name, os.Rename(temp, name)
	}
}
