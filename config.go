package tenancy

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"gorm.io/plugin/dbresolver"
)

// Config says how tenants are found and how many of their pools stay open.
// Only Resolver is needed, and Engine where a Database has a DSN.
type Config struct {
	// Resolver says where a tenant's database is. Required.
	Resolver Resolver
	// Engine opens DSNs: tenancypg.Engine{} or tenancysqlite.Engine{}.
	// Required where a [Database] has a DSN.
	Engine Engine
	// MainModels are the models (values or pointers, as for AutoMigrate) or
	// table names that live in the main database whatever the tenant. Their
	// statements need no tenant. Tenants must not own a table of such a name.
	MainModels []any
	// Pools bounds the open pools and their connections.
	Pools Limits
	// Recheck is how long an open pool is trusted: its Database is resolved
	// again after this, off the hot path, and the pool is retired when it
	// changed. Shorten it where a Resolver is no [Watcher]. Defaults to
	// 1 minute.
	Recheck time.Duration
	// Schema says which versions of a tenant's schema this build of the
	// application works with. Defaults to all of them.
	Schema SchemaRange
	// ReplicaPolicy chooses where a read goes when a tenant has several
	// [Database.Replicas] that answer. It is one of dbresolver's, or your own:
	// each of the pools that it is given has a method Server() string; it must
	// return one of them, change nothing in the slice, and be safe for several
	// goroutines (dbresolver.RoundRobinPolicy is not, StrictRoundRobinPolicy
	// is). Defaults to dbresolver.RandomPolicy.
	//
	// The rules of what is read where are dbresolver's: reads go to a replica;
	// writes, transactions, locking reads and what has the clause
	// dbresolver.Write go to the primary; raw SQL goes to a replica if it has
	// the clause dbresolver.Read or is a SELECT. Where a doubt is left, a raw
	// SELECT ... FOR SHARE or one from the server's own tables for instance, it
	// is the primary. A replica that fails is left alone for a second; the read
	// goes to another one, or to the primary.
	ReplicaPolicy dbresolver.Policy
	// SQLComment puts /*tenant='acme'*/ behind each statement that goes to a
	// tenant's database, so that the server's log, pg_stat_activity and monitors
	// that read sqlcommenter's comments name the tenant. What pgx sends on its
	// own connection (tenancypg.Raw), BEGIN and COMMIT have none, and statements
	// for the main database neither. It costs an allocation per statement.
	// Defaults to false.
	SQLComment bool
	// Observer is told of events. Defaults to none.
	Observer Observer
}

// Limits bounds the pools and connections to tenants' databases in this
// process. The main database's pool is the application's own and does not
// count. The zero value is made of the defaults, which let four processes share
// a PostgreSQL server as it comes, with 100 connections.
type Limits struct {
	// MaxPools is the number of tenants whose pool stays open; the least
	// recently used one is retired for the next. A pool in use is never
	// closed, so there may be more for the time of a call, and by as many as
	// callers that hang. A pool without connections costs some 7 KB, so this
	// can be large. Defaults to 1000.
	MaxPools int
	// MaxConnsPerTenant is the number of connections of one tenant, for those
	// whose Database sets none: what one busy tenant can take from the others.
	// At 1, a query inside an open Rows waits until AcquireTimeout. Defaults
	// to 4.
	MaxConnsPerTenant int
	// MaxConnsPerServer is the number of connections to one server, over all
	// its tenants: its budget. They are physical connections, counted from
	// before the dial until they are truly gone, those of OpenDB and Each
	// too. When all are taken, idle ones of the least recently used tenants
	// are closed for those who wait. Give each process its share of what the
	// server has. Defaults to 20, or to what an Engine that is a [ServerLimit]
	// says.
	MaxConnsPerServer int
	// Servers is MaxConnsPerServer for single servers, by their name; see
	// [Database.Server].
	Servers map[string]int
	// IdleTimeout is how long an unused pool stays open; it is closed within
	// a quarter of it after that. Defaults to 15 minutes.
	IdleTimeout time.Duration
	// ConnMaxIdleTime is how long an unused connection stays open. Raise it
	// where connecting is slow; lower it where the server has few
	// connections. Defaults to 1 minute.
	ConnMaxIdleTime time.Duration
	// ConnMaxLifetime is how long a connection is used at all, give or take
	// 10 %. Defaults to 30 minutes.
	ConnMaxLifetime time.Duration
	// ConnectTimeout bounds one connect, all included: the look-up of the
	// name, each address, TLS, the login. It goes on when its caller gives
	// up, for the next one. An Engine may have a shorter bound for each
	// address. Defaults to 10 seconds.
	ConnectTimeout time.Duration
	// AcquireTimeout bounds each wait for a connection, be it the tenant's
	// limit, the server's budget, the connect that takes long or a migration
	// of Config.Schema; the ctx's deadline counts too. [ErrPoolExhausted] then
	// says what was full; while the connect is still under way it is
	// [ErrUnavailable]. It does not bound the work that follows. Defaults to
	// 10 seconds.
	AcquireTimeout time.Duration
	// ReplicaTimeout is AcquireTimeout for a replica: a read that waits longer,
	// or for half of the time that its ctx has left, goes elsewhere. Defaults
	// to 1 second; more than AcquireTimeout counts as that.
	ReplicaTimeout time.Duration
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	if c.Pools.MaxPools == 0 {
		c.Pools.MaxPools = 1000
	}
	if c.Pools.MaxConnsPerTenant == 0 {
		c.Pools.MaxConnsPerTenant = 4
	}
	if c.Pools.MaxConnsPerServer == 0 {
		c.Pools.MaxConnsPerServer = 20
		if e, ok := c.Engine.(ServerLimit); ok {
			c.Pools.MaxConnsPerServer = e.ServerLimit()
		}
	}
	c.Pools.Servers = maps.Clone(c.Pools.Servers)
	set(&c.Pools.IdleTimeout, 15*time.Minute)
	set(&c.Pools.ConnMaxIdleTime, time.Minute)
	set(&c.Pools.ConnMaxLifetime, 30*time.Minute)
	set(&c.Pools.ConnectTimeout, 10*time.Second)
	set(&c.Pools.AcquireTimeout, 10*time.Second)
	set(&c.Pools.ReplicaTimeout, time.Second)
	if c.ReplicaPolicy == nil {
		c.ReplicaPolicy = dbresolver.RandomPolicy{}
	}
	set(&c.Recheck, time.Minute)
	set(&c.Schema.MigrateTimeout, time.Minute)
	return c
}

func (c Config) validate() error {
	if c.Resolver == nil {
		return errors.New("tenancy.Config.Resolver is not set; set tenancy.Static{...} or a Resolver of your own")
	}
	if s, ok := c.Resolver.(Static); ok {
		if err := s.validate(c.Engine); err != nil {
			return fmt.Errorf("tenancy.Config.%w", err)
		}
	}
	for name, n := range map[string]int{
		"Pools.MaxPools":          c.Pools.MaxPools,
		"Pools.MaxConnsPerTenant": c.Pools.MaxConnsPerTenant,
		"Pools.MaxConnsPerServer": c.Pools.MaxConnsPerServer,
	} {
		if n < 0 {
			return fmt.Errorf("tenancy.Config.%s is negative: %d", name, n)
		}
	}
	for name, n := range c.Pools.Servers {
		if n < 1 {
			return fmt.Errorf("tenancy.Config.Pools.Servers[%q] is %d; it must be at least 1, or leave the server out for MaxConnsPerServer", name, n)
		}
	}
	for name, d := range map[string]time.Duration{
		"Pools.IdleTimeout":     c.Pools.IdleTimeout,
		"Pools.ConnMaxIdleTime": c.Pools.ConnMaxIdleTime,
		"Pools.ConnMaxLifetime": c.Pools.ConnMaxLifetime,
		"Pools.ConnectTimeout":  c.Pools.ConnectTimeout,
		"Pools.AcquireTimeout":  c.Pools.AcquireTimeout,
		"Pools.ReplicaTimeout":  c.Pools.ReplicaTimeout,
		"Recheck":               c.Recheck,
		"Schema.MigrateTimeout": c.Schema.MigrateTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("tenancy.Config.%s is negative: %s", name, d)
		}
	}
	return c.Schema.validate()
}
