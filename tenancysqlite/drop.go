package tenancysqlite

import "context"

// Drop implements [catalog.Session]. The application's open connections keep
// files that have no name any more: what they write is gone with them.
func (s *session) Drop(ctx context.Context) error {
	return s.fail("can't be dropped", s.drop(ctx))
}

func (s *session) drop(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	root := s.server.root
	if err := s.tidy(creating, dumping, dropped); err != nil {
		return err
	}
	// The database goes in one moment, and its companions after it: it must
	// never be there without what they hold.
	for _, prefix := range []string{"", fenced, sealed} {
		if there, err := exists(root, prefix+s.name); err != nil {
			return err
		} else if there {
			if err := root.Rename(prefix+s.name, dropped+s.name); err != nil {
				return err
			}
		}
	}
	// Lest a power failure bring the name back alone.
	if err := syncDir(root, "."); err != nil {
		return err
	}
	if err := s.removeOrphans(); err != nil {
		return err
	}
	if err := s.tidy(dropped); err != nil {
		return err
	}
	return syncDir(root, ".")
}

// tidy removes what is left of interrupted work.
func (s *session) tidy(prefixes ...string) error {
	for _, p := range prefixes {
		if err := removeFile(s.server.root, p+s.name); err != nil {
			return err
		}
	}
	return nil
}

// removeOrphans removes companions from beside the names that the database is
// not at: SQLite would put what they hold, a deleted tenant's rows, into the
// next file of that name.
func (s *session) removeOrphans() error {
	for _, p := range []string{"", fenced, sealed} {
		there, err := exists(s.server.root, p+s.name)
		if err == nil && !there {
			err = removeCompanions(s.server.root, p+s.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
