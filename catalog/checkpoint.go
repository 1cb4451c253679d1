package catalog

import (
	"context"
	"sync"
)

// Checkpoint remembers in the main database which tenants had their turn in a
// sweep. It is what tenancy.EachOptions.Checkpoint wants.
type Checkpoint struct {
	c    *Catalog
	name string

	mu   sync.Mutex // guards done
	done map[string]bool
}

// Checkpoint returns the checkpoint of a name: "invoices 2026-11". A sweep that
// is begun again under the same name, by any process, leaves out the tenants
// that have had their turn. A tenant that was removed, and came again under the
// same id, has not.
func (c *Catalog) Checkpoint(name string) *Checkpoint { return &Checkpoint{c: c, name: name} }

// Done reports whether the tenant had its turn, as far as was known when the
// sweep began.
func (p *Checkpoint) Done(ctx context.Context, id string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		done, err := p.load(ctx)
		if err != nil {
			return false, p.c.mainError("checkpoint", err)
		}
		p.done = done
	}
	return p.done[id], nil
}

func (p *Checkpoint) load(ctx context.Context) (map[string]bool, error) {
	s := p.c.store
	rows, err := s.db.QueryContext(ctx, s.d.rebind("SELECT t.id FROM "+checkpointsTable+" c JOIN "+tenantsTable+
		" t ON t.uid = c.uid WHERE c.name = ? AND t.id IS NOT NULL AND t.state <> 'deleted'"), p.name)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	done := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		done[id] = true
	}
	return done, rows.Err()
}

// Mark notes that the tenant had its turn.
func (p *Checkpoint) Mark(ctx context.Context, id string) error {
	_, err := p.c.store.exec(ctx, "INSERT INTO "+checkpointsTable+" (name, uid)"+
		" SELECT CAST(? AS text), uid FROM "+tenantsTable+" WHERE id = ? AND state <> 'deleted' ON CONFLICT DO NOTHING", p.name, id)
	if err != nil {
		return p.c.mainError("checkpoint", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done != nil {
		p.done[id] = true
	}
	return nil
}

// Forget forgets all turns: the next sweep under the name begins anew.
func (p *Checkpoint) Forget(ctx context.Context) error {
	if _, err := p.c.store.exec(ctx, "DELETE FROM "+checkpointsTable+" WHERE name = ?", p.name); err != nil {
		return p.c.mainError("checkpoint", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = nil
	return nil
}
