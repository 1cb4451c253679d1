package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

func (a *app) suspend(ctx context.Context) error {
	if err := a.cat.Suspend(ctx, "acme", catalog.SuspendOptions{Reason: "unpaid"}); err != nil {
		return err
	}
	err := a.in(ctx, "acme").Create(&Note{Text: "must not be written"}).Error
	if err := a.refused("acme's write", err, tenancy.ErrTenantSuspended); err != nil {
		return err
	}
	if err := a.notes(ctx, "bravo"); err != nil { // others are not concerned
		return err
	}
	if err := a.cat.Unsuspend(ctx, "acme"); err != nil {
		return err
	}
	return a.notes(ctx, "acme")
}

func (a *app) rename(ctx context.Context) error {
	if err := a.cat.Rename(ctx, "acme", "apex"); err != nil {
		return err
	}
	if err := a.refused("acme", a.in(ctx, "acme").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound); err != nil {
		return err
	}
	return a.notes(ctx, "apex")
}

func (a *app) copy(ctx context.Context) error {
	var dump bytes.Buffer // or a file, or an upload
	if err := a.cat.Dump(ctx, "apex", &dump); err != nil {
		return err
	}
	if _, err := a.cat.Restore(ctx, "apex-test", &dump, catalog.CreateOptions{Server: "one"}); err != nil {
		return err
	}
	if err := a.in(ctx, "apex-test").Create(&Note{Text: "only a test"}).Error; err != nil {
		return err
	}
	if err := a.notes(ctx, "apex-test"); err != nil {
		return err
	}
	return a.notes(ctx, "apex")
}

func (a *app) move(ctx context.Context) error {
	if a.place.servers["two"] == nil {
		fmt.Fprintln(a.out, "there is one server only: name another with -dsn2")
		return nil
	}
	before, err := a.cat.Get(ctx, "apex")
	if err != nil {
		return err
	}
	if err := a.cat.Move(ctx, "apex", "two"); err != nil {
		return err
	}
	after, err := a.cat.Get(ctx, "apex")
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "apex was on %s and is on %s, the same tenant: %t\n", before.Server, after.Server, before.UID == after.UID)
	return a.notes(ctx, "apex")
}
