package testpg

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// keptTime is how long a kept database stays at most.
	keptTime = 24 * time.Hour
	// templateTime is how long a template stays that nobody uses.
	templateTime = 7 * 24 * time.Hour

	// deadTime bounds the wait for sessions of dead runs, and deadPoll is how
	// often they are looked at.
	deadTime = 10 * time.Second
	deadPoll = 10 * time.Millisecond

	templateName  = prefix + "tpl_"
	keptComment   = "tenancytest: kept "          // PACKAGE UNIXTIME
	usedComment   = "tenancytest: template used " // UNIXTIME
	commentColumn = "coalesce(shobj_description(oid, 'pg_database'), '')"
)

// What the names of a run's databases and sessions look like. Others are not
// the kit's, whatever they begin with.
var (
	runDatabase = regexp.MustCompile(`^` + prefix + `[a-z2-7]{12}_[0-9]+$`)
	runSession  = regexp.MustCompile(`^` + prefix + `[a-z2-7]{12}$`)
)

// found is a database on the server.
type found struct{ name, comment string }

// run is the id of the run that made it.
func (f found) run() string {
	id, _, _ := strings.Cut(strings.TrimPrefix(f.name, prefix), "_")
	return id
}

func (f found) kept() bool { return strings.HasPrefix(f.comment, keptComment) }

// keeps reports whether a kept database of a run that is over stays: those of
// pkg don't.
func (f found) keeps(pkg string, now time.Time) bool {
	of, at, _ := strings.Cut(strings.TrimPrefix(f.comment, keptComment), " ")
	return f.kept() && of != pkg && !older(at, now, keptTime)
}

// unused reports whether it is a template that nobody has used for long.
func (f found) unused(now time.Time) bool {
	unix, ok := strings.CutPrefix(f.comment, usedComment)
	return ok && older(unix, now, templateTime)
}

func older(unix string, now time.Time, age time.Duration) bool {
	at, err := strconv.ParseInt(unix, 10, 64)
	return err != nil || now.Sub(time.Unix(at, 0)) > age
}

// sweep removes what dead runs have left, what was kept long enough, and
// templates that nobody uses any more. A process that comes while another
// sweeps leaves it to that one. wait bounds the wait for sessions of dead runs;
// what belongs to those that stay is left to a later run.
func (s *server) sweep(ctx context.Context, wait time.Duration) (err error) {
	conn, err := s.admin.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var mine bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", key("sweep")).Scan(&mine); err != nil || !mine {
		return err
	}
	defer func() {
		_, unlockErr := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", key("sweep"))
		err = errors.Join(err, unlockErr)
	}()
	if err := s.awaitDead(ctx, wait); err != nil {
		return err
	}
	// In this order: a run has its lock before it makes a database.
	all, err := s.list(ctx, prefix)
	if err != nil {
		return err
	}
	live, err := s.locks(ctx)
	if err != nil {
		return err
	}
	// A run whose lock was lost, with the session that had it, is not over as long
	// as it has others.
	runs, err := s.sessions(ctx)
	if err != nil {
		return err
	}
	for _, run := range runs {
		live[runKey(run)] = true
	}
	now := time.Now()
	var dead []string
	for _, f := range all {
		switch {
		case strings.HasPrefix(f.name, templateName):
			if f.unused(now) {
				_ = s.dropTemplate(ctx, f.name)
			}
		case runDatabase.MatchString(f.name) && !live[runKey(f.run())] && !f.keeps(s.pkg, now):
			dead = append(dead, f.name)
		}
	}
	// What can't be dropped, because of a replication slot for instance, is no
	// reason not to test. The next run tries again.
	_ = s.drop(ctx, dead)
	return nil
}

// awaitDead waits until the sessions of dead runs are gone: the server does not
// notice during a CREATE DATABASE that its client was killed, and completes it.
// A session of a run that has just begun, and has no lock yet, is waited for too.
func (s *server) awaitDead(ctx context.Context, wait time.Duration) error {
	limit := time.NewTimer(wait)
	defer limit.Stop()
	for {
		runs, err := s.sessions(ctx)
		if err != nil {
			return err
		}
		live, err := s.locks(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(runs, func(run string) bool { return !live[runKey(run)] }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return nil // it hangs; what it makes is left to a later run
		case <-time.After(deadPoll):
		}
	}
}

// sessions returns the ids of the runs that have sessions.
func (s *server) sessions(ctx context.Context) (runs []string, err error) {
	rows, err := s.admin.QueryContext(ctx, `SELECT DISTINCT application_name FROM pg_stat_activity
		WHERE starts_with(application_name, $1)`, prefix)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if runSession.MatchString(name) {
			runs = append(runs, strings.TrimPrefix(name, prefix))
		}
	}
	return runs, rows.Err()
}

// list returns the databases whose names begin with prefix and that this role
// may drop.
func (s *server) list(ctx context.Context, prefix string) (all []found, err error) {
	rows, err := s.admin.QueryContext(ctx, `SELECT format('%s', datname), `+commentColumn+`
		FROM pg_database WHERE starts_with(datname::text, $1) AND pg_has_role(datdba, 'USAGE')`, prefix)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var f found
		if err := rows.Scan(&f.name, &f.comment); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, rows.Err()
}

// locks returns the keys of all advisory locks on the server, in whatever
// database their sessions are: those of other processes need not name the
// same maintenance database.
func (s *server) locks(ctx context.Context) (map[int64]bool, error) {
	rows, err := s.admin.QueryContext(ctx, `SELECT (classid::bigint << 32) | objid::bigint
		FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[int64]bool{}
	for rows.Next() {
		var k int64
		if err := rows.Scan(&k); err != nil {
			return nil, err
		}
		all[k] = true
	}
	return all, rows.Err()
}

// drop drops databases, several at a time.
func (s *server) drop(ctx context.Context, names []string) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
		next = make(chan string)
	)
	for range min(adminConns-1, len(names)) {
		wg.Go(func() {
			for name := range next {
				if err := s.exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)"); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("dropping %s: %w", name, err))
					mu.Unlock()
				}
			}
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// dropAll drops what the run has made, save what is kept.
func (s *server) dropAll(ctx context.Context) error {
	all, err := s.list(ctx, prefix+s.id+"_")
	if err != nil {
		return err
	}
	var names []string
	for _, f := range all {
		if !f.kept() {
			names = append(names, f.name)
		}
	}
	return s.drop(ctx, names)
}
