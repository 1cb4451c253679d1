package catalog

import (
	"context"
	"database/sql"
	"errors"
)

// template is the name of a server's current template, "" if there is none to
// copy.
func (c *Catalog) template(catalogID, server string) string {
	if c.cfg.Migrator == nil || c.cfg.NoTemplates {
		return ""
	}
	_, fingerprint := c.cfg.Migrator.Target()
	return templateName(catalogID, server, fingerprint)
}

// buildTemplate makes the template on one server, unless another process does
// so first. It is sealed as the last step: one that is not is half-made.
func (c *Catalog) buildTemplate(ctx context.Context, server Server, catalogID, name string) (err error) {
	session, err := c.session(ctx, server, name, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	found, err := server.Databases(ctx)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Name == name && f.Template {
			return nil
		}
	}
	if err := session.Drop(ctx); err != nil {
		return err
	}
	if err := session.Create(ctx, ""); err != nil {
		return err
	}
	m := Meta{Catalog: catalogID}
	m.UID, m.Generation = templateUID, 1
	if err := session.Mark(ctx, m); err != nil {
		return err
	}
	if err := withDB(ctx, session, func(db *sql.DB) error { return c.up(ctx, db) }); err != nil {
		return err
	}
	// The grants on what is in it are copied with it.
	if err := session.Open(ctx); err != nil {
		return err
	}
	return session.Seal(ctx)
}

func (c *Catalog) up(ctx context.Context, db *sql.DB) error {
	target, _ := c.cfg.Migrator.Target()
	_, err := c.cfg.Migrator.Up(ctx, db, target)
	return err
}
