//go:build unix

package testsqlite

import (
	"io/fs"
	"os"
	"syscall"
)

// private reports whether info is of a directory that only this user can write
// to or read.
func private(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.IsDir() && info.Mode().Perm()&0o077 == 0 && int64(stat.Uid) == int64(os.Getuid())
}
