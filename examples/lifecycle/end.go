package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

func (a *app) list(ctx context.Context) error {
	for t, err := range a.cat.List(ctx, catalog.Filter{Labels: map[string]string{"plan": "gold"}}) {
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, "on the gold plan:", t.ID)
	}
	// A piece of work for every active tenant, several at a time.
	var mu sync.Mutex
	var counts []string
	err := tenancy.Each(ctx, a.db, a.cat.IDs(ctx, catalog.Filter{}), tenancy.EachOptions{Parallel: 4},
		func(_ context.Context, id string, db *gorm.DB) error {
			var n int64
			if err := db.Model(&Note{}).Count(&n).Error; err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			counts = append(counts, fmt.Sprintf("%s %d", id, n))
			return nil
		})
	slices.Sort(counts) // they are in no order that means anything
	fmt.Fprintln(a.out, "notes:", strings.Join(counts, ", "))
	return err
}

func (a *app) remove(ctx context.Context) error {
	gone, err := a.cat.Remove(ctx, "apex-test", catalog.RemoveOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, "apex-test is", gone.State)
	err = a.in(ctx, "apex-test").Find(&[]Note{}).Error
	if err := a.refused("apex-test", err, tenancy.ErrTenantNotFound); err != nil {
		return err
	}
	// It was a mistake: the tombstone knows where the backup is.
	backup, err := os.Open(gone.Backup)
	if err != nil {
		return err
	}
	defer func() { _ = backup.Close() }()
	if _, err := a.cat.Restore(ctx, "apex-test", backup, catalog.CreateOptions{Server: "one"}); err != nil {
		return err
	}
	return a.notes(ctx, "apex-test")
}

func (a *app) audit(ctx context.Context) error {
	found, err := a.cat.Audit(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%d orphans, %d missing, %d servers that can't be reached\n",
		len(found.Orphans), len(found.Missing), len(found.Unreachable))
	return nil
}
