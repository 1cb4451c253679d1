package tenancysqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
)

// Dump implements [catalog.Session]. A dump is an SQLite file. It is made
// beside the database first, so that needs room there, but nobody waits for a
// slow w with a transaction open.
func (s *session) Dump(ctx context.Context, w io.Writer) error {
	return s.fail("can't be dumped", s.dump(ctx, w))
}

func (s *session) dump(ctx context.Context, w io.Writer) (err error) {
	db, err := s.db(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	root, temp := s.server.root, dumping+s.name
	if err := s.tidy(dumping); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.tidy(dumping)) }()
	// VACUUM INTO takes an empty file, and leaves it its mode
	// (https://www.sqlite.org/lang_vacuum.html).
	if err := touch(root, temp, os.O_CREATE|os.O_EXCL); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", s.path(temp)); err != nil {
		return err
	}
	f, err := root.Open(temp)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, ctxReader{ctx, f})
	return err
}

// Restore implements [catalog.Session]. It takes the place of a database that
// is closed to the application; one that is open, or a template, is an error.
// It is checked (PRAGMA quick_check) before it gets its name, at which it is
// whole or not at all, closed to the application.
func (s *session) Restore(ctx context.Context, r io.Reader) error {
	return s.fail("can't be restored", s.restore(ctx, r))
}

func (s *session) restore(ctx context.Context, r io.Reader) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.tidy(creating, dropped); err != nil {
		return err
	}
	prefix, err := s.find()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case prefix == sealed:
		return errors.New("there is a template of that name")
	case prefix == "":
		return errors.New("it is there, and open to the application; fence it, or drop it")
	}
	if err := s.removeOrphans(); err != nil {
		return err
	}
	return makeFile(ctx, s.server.root, creating+s.name, fenced+s.name, func(temp string) error {
		if err := s.fill(ctx, temp, r); err != nil {
			return err
		}
		if err := checkDump(s.server.root, temp); err != nil {
			return err
		}
		if err := s.quickCheck(ctx, temp); err != nil {
			return err
		}
		if err := s.prepare(ctx, temp, false); err != nil {
			return err
		}
		// Only now that there is another does the old one go.
		return removeFile(s.server.root, fenced+s.name)
	})
}

// errCutOff is a dump that is not all there.
var errCutOff = errors.New("the dump is cut off, or no SQLite file")

// checkDump looks whether a file is as long as its header says
// (https://www.sqlite.org/fileformat.html, section 1.3).
func checkDump(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, 100)
	if _, err := io.ReadFull(f, head); err == io.EOF || err == io.ErrUnexpectedEOF {
		return errCutOff
	} else if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		return errCutOff
	}
	pageSize := int64(binary.BigEndian.Uint16(head[16:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	pages := int64(binary.BigEndian.Uint32(head[28:]))
	counted := pages > 0 && bytes.Equal(head[24:28], head[92:96])
	if pageSize == 0 || info.Size()%pageSize != 0 || counted && pages*pageSize != info.Size() {
		return errCutOff
	}
	return nil
}

func (s *session) quickCheck(ctx context.Context, temp string) error {
	db := s.open(temp, url.Values{"mode": {"rw"}})
	defer db.Close()
	var result string
	err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errCutOff
	case err != nil:
		return err
	case result != "ok":
		return fmt.Errorf("the dump is damaged: %s", result)
	}
	return db.Close()
}
