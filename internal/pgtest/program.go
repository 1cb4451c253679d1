package pgtest

import "path/filepath"

// Program returns the path of one of PostgreSQL's programs, of the cluster's
// version. With TENANCY_TEST_DSN it is the bare name.
func (c *Cluster) Program(name string) string { return filepath.Join(c.bin, name) }
