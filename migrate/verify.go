package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// Subject is a tenant whose database [Verify] looks into.
type Subject struct {
	Tenant, Server string
	// Ref is what the list itself calls the tenant; Drifts repeat it.
	Ref string
	// Booked is what a catalog knows of its schema; nil where there is none.
	Booked *Booked
	// Open opens the database for reading.
	Open func(ctx context.Context) (*Exclusive, error)
	// Inspector looks at the schema. If it is nil, only the version is looked
	// at.
	Inspector Inspector
}

// Booked is a version, and the migrations that led to it: "" if not known.
type Booked struct {
	Version     int64
	Fingerprint string
}

// VerifyOptions says how [Verify] goes on. The zero value is useful.
type VerifyOptions struct {
	// Workers is how many databases are looked at at a time, and PerServer how
	// many of these may be on one server. Default to 32 and 8.
	Workers, PerServer int
	// Timeout bounds the look at one database. Defaults to 30 seconds.
	Timeout time.Duration
	// Progress is told how many have been looked at. It is called by one
	// goroutine at a time.
	Progress func(checked int)
}

// Verification is what [Verify] has found.
type Verification struct {
	Target      int64  `json:"target"`
	Fingerprint string `json:"fingerprint"`
	// Checked is the number of databases that were looked at.
	Checked int           `json:"checked"`
	Took    time.Duration `json:"took_ns"`
	// Drifts are in the order of servers and tenants. One tenant can have
	// several.
	Drifts []Drift `json:"drifts"`
}

// Drift is a difference between a tenant's database and what it should be.
type Drift struct {
	Tenant string    `json:"tenant"`
	Server string    `json:"server,omitempty"`
	Kind   DriftKind `json:"kind"`
	Detail string    `json:"detail"`
	// Version is that of the database, for DriftVersion and DriftBook, and Booked
	// what the catalog said of it.
	Version int64  `json:"version,omitempty"`
	Booked  int64  `json:"booked,omitempty"`
	Ref     string `json:"ref,omitempty"`
}

// DriftKind is the kind of a [Drift].
type DriftKind string

// The kinds of drift.
const (
	DriftVersion     DriftKind = "version"     // the database is not at the target
	DriftBook        DriftKind = "book"        // the catalog says another version than the database
	DriftFingerprint DriftKind = "fingerprint" // it was migrated by other migrations of the same version
	DriftSchema      DriftKind = "schema"      // its schema is not that of the other tenants
	DriftIndex       DriftKind = "index"       // an index can't be used
	DriftUnreachable DriftKind = "unreachable" // it could not be looked into
)

// look is what was found in one database.
type look struct {
	s       Subject
	version int64
	Inspection
	err error
}

// Verify looks into every database for drift: its version, its schema, which
// must be that of most others at that version, and indexes that can't be used.
// It writes nothing, and takes no lock that hurts. The error is for the list of
// subjects, and the ctx's end; drift is none.
func Verify(ctx context.Context, subjects iter.Seq2[Subject, error], m Migrator, opt VerifyOptions) (*Verification, error) {
	if m == nil {
		return nil, errors.New("migrate: there is no Migrator")
	}
	if opt.Workers <= 0 {
		opt.Workers = 32
	}
	if opt.PerServer <= 0 {
		opt.PerServer = 8
	}
	if opt.Timeout <= 0 {
		opt.Timeout = 30 * time.Second
	}
	v := &Verification{Drifts: []Drift{}}
	v.Target, v.Fingerprint = m.Target()
	began := time.Now()
	var (
		mu      sync.Mutex
		looks   []look
		wg      sync.WaitGroup
		listErr error
		crews   = map[string]chan struct{}{}
		places  = make(chan struct{}, opt.Workers)
	)
	for s, err := range subjects {
		if err != nil || ctx.Err() != nil {
			listErr = err
			break
		}
		if crews[s.Server] == nil {
			crews[s.Server] = make(chan struct{}, opt.PerServer)
		}
		crew := crews[s.Server]
		// The list is read as far ahead as there are Workers. Those of a server
		// that is slow hold up the others then, which are only looked at.
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			crew <- struct{}{}
			defer func() { <-crew }()
			l := lookInto(ctx, s, m, opt.Timeout)
			mu.Lock()
			defer mu.Unlock()
			looks = append(looks, l)
			if opt.Progress != nil {
				opt.Progress(len(looks))
			}
		})
	}
	wg.Wait()
	v.Checked, v.Took = len(looks), time.Since(began)
	slices.SortFunc(looks, func(a, b look) int {
		return strings.Compare(a.s.Server+"\x00"+a.s.Tenant, b.s.Server+"\x00"+b.s.Tenant)
	})
	usual := usualSchemas(looks)
	for _, l := range looks {
		v.judge(l, usual[l.version])
	}
	if listErr == nil && ctx.Err() != nil {
		listErr = context.Cause(ctx)
	}
	return v, listErr
}

func lookInto(ctx context.Context, s Subject, m Migrator, timeout time.Duration) look {
	l := look{s: s}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ex, err := s.Open(ctx)
	if err != nil {
		l.err = err
		return l
	}
	l.err = func(db *sql.DB) (err error) {
		if l.version, err = m.Current(ctx, db); err != nil || s.Inspector == nil {
			return err
		}
		l.Inspection, err = s.Inspector.Inspect(ctx, db)
		return err
	}(ex.DB)
	if err := ex.Close(); l.err == nil {
		l.err = err
	}
	return l
}

// usualSchema is the schema that most have of those at one version.
type usualSchema struct {
	digest, example string
	n               int
}

func usualSchemas(looks []look) map[int64]usualSchema {
	type key struct {
		version int64
		digest  string
	}
	counts := map[key]int{}
	usual := map[int64]usualSchema{}
	for _, l := range looks {
		if l.err == nil && l.Schema != "" {
			counts[key{l.version, l.Schema}]++
		}
	}
	for _, l := range looks { // in their order, so that the first of equals is it
		if n := counts[key{l.version, l.Schema}]; l.err == nil && n > usual[l.version].n {
			usual[l.version] = usualSchema{l.Schema, l.s.Tenant, n}
		}
	}
	return usual
}

func (v *Verification) judge(l look, usual usualSchema) {
	add := func(kind DriftKind, version int64, format string, args ...any) {
		d := Drift{Tenant: l.s.Tenant, Server: l.s.Server, Ref: l.s.Ref, Kind: kind, Version: version, Detail: fmt.Sprintf(format, args...)}
		if l.s.Booked != nil {
			d.Booked = l.s.Booked.Version
		}
		v.Drifts = append(v.Drifts, d)
	}
	if l.err != nil {
		add(DriftUnreachable, 0, "%v", l.err)
		return
	}
	if l.version != v.Target {
		add(DriftVersion, l.version, "it is at version %d, and the target is %d", l.version, v.Target)
	}
	if b := l.s.Booked; b != nil {
		switch {
		case b.Version != l.version:
			add(DriftBook, l.version, "the catalog says version %d, the database %d", b.Version, l.version)
		case l.version == v.Target && b.Fingerprint != v.Fingerprint:
			add(DriftFingerprint, l.version, "it was migrated by %q, and these migrations are %q", b.Fingerprint, v.Fingerprint)
		}
	}
	if l.Schema != "" && l.Schema != usual.digest {
		add(DriftSchema, l.version, "its schema differs from that of %d tenants at version %d, %s for instance", usual.n, l.version, usual.example)
	}
	if len(l.Invalid) > 0 {
		add(DriftIndex, l.version, "invalid: %s; drop it or REINDEX it CONCURRENTLY", strings.Join(l.Invalid, ", "))
	}
}

// Subjects lists the tenants of a List for [Verify].
func (l List) Subjects(ctx context.Context) iter.Seq2[Subject, error] {
	return func(yield func(Subject, error) bool) {
		for id, err := range l.IDs {
			if err != nil {
				yield(Subject{}, err)
				return
			}
			s := Subject{Tenant: id, Inspector: l.Engine}
			d, err := l.Resolver.Resolve(ctx, id)
			s.Server = serverOf(l.Engine, d)
			s.Open = func(ctx context.Context) (*Exclusive, error) {
				if err != nil {
					return nil, err
				}
				return l.Engine.LockDatabase(ctx, d, Lock{ReadOnly: true, Identity: d.Identity})
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}
