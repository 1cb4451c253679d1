//go:build !unix

package testsqlite

import "io/fs"

// private reports whether info is of a directory: there, the temporary
// directory is the user's own.
func private(info fs.FileInfo) bool { return info.IsDir() }
