package catalog

import (
	"context"
	"strings"
	"time"
)

// reconcile is how often everything that is remembered is compared with the
// main database although news is heard of it.
const reconcile = 30 * time.Second

// Watch tells of every tenant that changed, in this process or another one. It
// implements tenancy.Watcher; a plugin calls it by itself. It returns when ctx
// ends.
//
// On PostgreSQL it listens, on a connection of the main database that it keeps,
// and news takes milliseconds. Where that can't be (SQLite, a connection pooler
// in transaction mode, a lost connection until there is another) it asks every
// Config.Poll for what it remembers (Config.Remember tenants). After a gap all
// that is compared. What it does not remember any more is met by the plugin's
// own Config.Recheck.
func (c *Catalog) Watch(ctx context.Context, changed func(id string)) error {
	defer c.lookups.listen(changed)()
	lost := make(chan error, 1)
	ready := make(chan struct{}, 1)
	listening := false
	var retry <-chan time.Time // when to listen again
	pause := c.cfg.Poll
	listen := func() {
		go func() {
			lost <- c.cfg.Listener.Listen(ctx, c.store.db, channel,
				func() { ready <- struct{}{} },
				func(id string) { c.lookups.news(id) })
		}()
	}
	running := c.cfg.Listener != nil
	if running {
		listen()
	}
	defer func() {
		if running {
			<-lost // it ends with ctx
		}
	}()

	poll := time.NewTicker(c.cfg.Poll)
	defer poll.Stop()
	last := time.Duration(-1) // never
	failing := false
	compare := func() {
		began := monotonic()
		err := c.compare(ctx)
		if ctx.Err() != nil {
			return
		}
		if (err != nil) != failing {
			failing = err != nil
			if failing {
				c.cfg.Logger.Warn("tenancy: the main database can't be asked for changes; it is asked again", "error", err)
			}
		}
		if err != nil {
			return
		}
		last = began
		period := c.cfg.Poll
		if listening {
			period = reconcile
		}
		c.lookups.keep(began + 2*period)
	}
	compare()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ready:
			listening, pause = true, c.cfg.Poll
			c.lookups.news() // what is asked for now may be from before
			compare()        // what changed before it heard
		case err := <-lost:
			running = false
			select {
			case <-ready: // of the one that ended
			default:
			}
			c.lookups.keep(0)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if listening || pause == c.cfg.Poll { // once for each time that it is lost
				c.cfg.Logger.Warn("tenancy: no news from the main database; it is asked instead", "every", c.cfg.Poll, "error", err)
			}
			listening = false
			compare()
			retry = time.After(pause)
			pause = min(2*pause, reconcile)
		case <-retry:
			retry, running = nil, true
			listen()
		case <-poll.C:
			if !listening || last < 0 || monotonic()-last >= reconcile {
				compare()
			}
		}
	}
}

// compare looks whether what is remembered is so still.
func (c *Catalog) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	known, epoch := c.lookups.snapshot()
	ids := sortedKeys(known)
	const page = 500
	for len(ids) > 0 {
		part := ids[:min(page, len(ids))]
		ids = ids[len(part):]
		args := make([]any, len(part))
		for i, id := range part {
			args[i] = id
		}
		rows, err := c.store.many(ctx, "", "state <> 'deleted' AND id IN (?"+strings.Repeat(", ?", len(part)-1)+")", page, args...)
		if err != nil {
			return err
		}
		found := make(map[string]place, len(rows))
		for _, t := range rows {
			found[t.ID] = t.place()
		}
		for _, id := range part {
			if found[id] != known[id] {
				c.lookups.news(id)
			} else {
				c.lookups.same(id, known[id], epoch)
			}
		}
	}
	return nil
}
