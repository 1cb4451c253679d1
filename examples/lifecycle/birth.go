package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

func (a *app) create(ctx context.Context) error {
	// Unknown ids have no database, and get none by being used.
	err := a.in(ctx, "acme").Find(&[]Note{}).Error
	if err := a.refused("before", err, tenancy.ErrTenantNotFound); err != nil {
		return err
	}
	acme, err := a.cat.Create(ctx, "acme", catalog.CreateOptions{
		Server: "one", // otherwise Config.Placement decides
		Labels: map[string]string{"plan": "gold"},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "acme is %s on %s, at version %d of the schema\n", acme.State, acme.Server, acme.Version)
	// A request that is sent twice makes one tenant.
	again, err := a.cat.Create(ctx, "acme", catalog.CreateOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, "created again, the same tenant:", again.UID == acme.UID)
	if err := a.in(ctx, "acme").Create(&Note{Text: "buy anvils"}).Error; err != nil {
		return err
	}
	return a.notes(ctx, "acme")
}

func (a *app) ready(ctx context.Context) error {
	// An application calls cat.Run, which does this in the background.
	if err := a.cat.FillReady(ctx); err != nil {
		return err
	}
	if err := a.waiting(ctx, "ready databases on one"); err != nil {
		return err
	}
	bravo, err := a.cat.Create(ctx, "bravo", catalog.CreateOptions{Server: "one", Labels: map[string]string{"plan": "free"}})
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, "bravo is", bravo.State)
	if err := a.waiting(ctx, "ready databases left on one"); err != nil {
		return err
	}
	return a.notes(ctx, "bravo")
}

func (a *app) waiting(ctx context.Context, what string) error {
	loads, err := a.cat.Loads(ctx)
	if err != nil {
		return err
	}
	for _, l := range loads {
		if l.Server == "one" {
			fmt.Fprintf(a.out, "%s: %d\n", what, l.Ready)
		}
	}
	return nil
}

func (a *app) adopt(ctx context.Context) error {
	name, err := a.place.legacy(ctx, "made by hand, years ago")
	if err != nil {
		return err
	}
	old, err := a.cat.Adopt(ctx, "veteran", catalog.AdoptOptions{
		CreateOptions: catalog.CreateOptions{Server: "one"},
		Database:      name, // it keeps its name
		Migrate:       true,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "veteran is %s, adopted: %t, at version %d of the schema\n", old.State, old.Adopted, old.Version)
	return a.notes(ctx, "veteran")
}

func (a *app) resume(ctx context.Context) error {
	// The seed fails, as it may when the process dies or a service is down.
	a.seed.down.Store(true)
	_, err := a.cat.Create(ctx, "delta", catalog.CreateOptions{Server: "one"})
	if err == nil {
		return errors.New("the seed should have failed")
	}
	a.seed.down.Store(false)
	delta, err := a.cat.Get(ctx, "delta")
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "delta is %s: its %s stopped at step %q: %s\n", delta.State, delta.Task, delta.Step, delta.LastError)
	// Nobody is served from half a database.
	err = a.in(ctx, "delta").Find(&[]Note{}).Error
	if err := a.refused("meanwhile", err, tenancy.ErrTenantNotFound); err != nil {
		return err
	}
	// Any process can do this, at any time; cat.Run does.
	resumed, err := a.cat.Resume(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "resumed: %d finished, %d failed, %d in work elsewhere\n",
		len(resumed.Finished), len(resumed.Failed), len(resumed.Busy))
	return a.notes(ctx, "delta")
}
