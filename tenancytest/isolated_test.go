package tenancytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenant"
)

type handler = func(ctx context.Context, w io.Writer) error

// seedOrders gives each tenant the same keys, and titles of its own.
func seedOrders(ctx context.Context, db *gorm.DB) error {
	id, _ := tenant.ID(ctx)
	return db.Create([]Order{{Title: "first <order> of " + id}, {Title: "second order of " + id}}).Error
}

// isolate runs RequireIsolated as a test of its own.
func isolate(k *tenancytest.Kit, make func(env *tenancytest.Env) handler, opts ...tenancytest.IsolatedOption) *recorder {
	if opts == nil {
		opts = []tenancytest.IsolatedOption{tenancytest.Seed(seedOrders)}
	}
	return record("TestX", func(r *recorder) {
		env := k.Env(r)
		tenancytest.RequireIsolated(r, env, make(env), opts...)
	})
}

// list writes all orders.
func list(db *gorm.DB, w io.Writer) error {
	var all []Order
	if err := db.Order("id").Find(&all).Error; err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(all)
}

// Handlers that keep tenants apart pass.
func TestIsolated(t *testing.T) {
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		for name, make := range map[string]func(env *tenancytest.Env) handler{
			"reads": func(env *tenancytest.Env) handler {
				return func(ctx context.Context, w io.Writer) error { return list(env.DB.WithContext(ctx), w) }
			},
			"writes, and fails when called again": func(env *tenancytest.Env) handler {
				return func(ctx context.Context, w io.Writer) error {
					id, _ := tenant.ID(ctx)
					return env.DB.WithContext(ctx).Create(&Order{Title: "new of " + id}).Error
				}
			},
			"writes the same for all, in a transaction": func(env *tenancytest.Env) handler {
				return func(ctx context.Context, w io.Writer) error {
					return env.DB.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
						if err := tx.Create(&Line{OrderID: 1, Text: "was looked at"}).Error; err != nil {
							return err
						}
						if err := tx.Model(&Order{}).Where("id = 2").Update("title", gorm.Expr("title || '!'")).Error; err != nil {
							return err
						}
						fmt.Fprint(w, "was looked at")
						return list(tx, w)
					})
				}
			},
			"caches by tenant and key": func(env *tenancytest.Env) handler {
				var cache sync.Map
				return func(ctx context.Context, w io.Writer) error {
					id, _ := tenant.ID(ctx)
					key := [2]any{id, 1}
					if title, ok := cache.Load(key); ok {
						_, err := fmt.Fprint(w, title)
						return err
					}
					var o Order
					if err := env.DB.WithContext(ctx).First(&o, 1).Error; err != nil {
						return err
					}
					cache.Store(key, o.Title)
					_, err := fmt.Fprint(w, o.Title)
					return err
				}
			},
			"holds a mutex for its whole call": func(env *tenancytest.Env) handler {
				var mu sync.Mutex
				return func(ctx context.Context, w io.Writer) error {
					mu.Lock()
					defer mu.Unlock()
					return list(env.DB.WithContext(ctx), w)
				}
			},
			"reads the main database too": func(env *tenancytest.Env) handler {
				return func(ctx context.Context, w io.Writer) error {
					var plans []Plan
					if err := env.DB.WithContext(ctx).Find(&plans).Error; err != nil {
						return err
					}
					return list(env.DB.WithContext(ctx), w)
				}
			},
			"over HTTP": func(env *tenancytest.Env) handler { return overHTTP(env.DB) },
		} {
			t.Run(name, func(t *testing.T) { isolate(k, make).passes(t) })
		}
	})
}

// overHTTP is an application that knows the tenant by the host.
func overHTTP(db *gorm.DB) handler {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := strings.Cut(r.Host, ".")
		w.Header().Set("X-Tenant", id)
		if err := list(db.WithContext(tenant.Ctx(r.Context(), id)), w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return tenancytest.HTTP(h, func(ctx context.Context) (*http.Request, error) {
		id, _ := tenant.ID(ctx)
		return http.NewRequest(http.MethodGet, "http://"+id+".example.com/orders", nil)
	})
}

// Handlers that leak fail, and the test says how.
func TestNotIsolated(t *testing.T) {
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		for name, c := range map[string]struct {
			make func(env *tenancytest.Env) handler
			says []string
		}{
			"caches by key alone": {
				func(env *tenancytest.Env) handler {
					cache := map[uint]string{}
					var mu sync.Mutex
					return func(ctx context.Context, w io.Writer) error {
						var ids []uint
						if err := env.DB.WithContext(ctx).Model(&Order{}).Pluck("id", &ids).Error; err != nil {
							return err
						}
						mu.Lock()
						defer mu.Unlock()
						for _, id := range ids {
							if cache[id] == "" {
								var o Order
								if err := env.DB.WithContext(ctx).First(&o, id).Error; err != nil {
									return err
								}
								cache[id] = o.Title
							}
							fmt.Fprintln(w, cache[id])
						}
						return nil
					}
				},
				[]string{"the first call as isolated-1b", `its output holds "second order of isolated-1a"`, "orders.title"},
			},
			"keeps the first ctx": {
				func(env *tenancytest.Env) handler {
					var first context.Context
					return func(ctx context.Context, w io.Writer) error {
						if first == nil {
							first = context.WithoutCancel(ctx)
						}
						return list(env.DB.WithContext(first), w)
					}
				},
				[]string{"the first call as isolated-1b", "went to the database of isolated-1a: SELECT", `"second order of isolated-1a"`},
			},
			"writes with the first ctx": {
				func(env *tenancytest.Env) handler {
					var first context.Context
					n := 0
					return func(ctx context.Context, w io.Writer) error {
						if first == nil {
							first = tenant.Ctx(context.Background(), must(tenant.ID(ctx)))
						}
						n++
						return env.DB.WithContext(first).Create(&Order{Title: fmt.Sprint("new ", n)}).Error
					}
				},
				[]string{"with a ctx that is not its own, went to the database of isolated-1a: INSERT", `the database of isolated-1a has a new row orders{`, `"new 2"`},
			},
			"deletes with the first ctx": {
				func(env *tenancytest.Env) handler {
					var first *gorm.DB
					return func(ctx context.Context, w io.Writer) error {
						if first == nil {
							first = env.DB.WithContext(context.WithoutCancel(ctx))
						}
						return first.Where("id = (SELECT min(id) FROM orders)").Delete(&Order{}).Error
					}
				},
				[]string{"the database of isolated-1a has lost the row orders{"},
			},
			"captured another tenant's DB": {
				func(env *tenancytest.Env) handler {
					var captured *gorm.DB
					return func(ctx context.Context, w io.Writer) error {
						if captured == nil {
							captured = env.DB.WithContext(context.WithoutCancel(ctx)).Session(&gorm.Session{})
						}
						return list(captured, w)
					}
				},
				[]string{"went to the database of isolated-1a: SELECT"},
			},
			"copies from one to the other": {
				func(env *tenancytest.Env) handler {
					var last []Order
					return func(ctx context.Context, w io.Writer) error {
						for n, o := range last {
							line := Line{OrderID: 1, Text: fmt.Sprint(n, o.Title)}
							if err := env.DB.WithContext(ctx).Create(&line).Error; err != nil {
								return err
							}
						}
						return env.DB.WithContext(ctx).Find(&last).Error
					}
				},
				[]string{`the database of isolated-1b has got "1second order of isolated-1a" in lines.text`},
			},
			"answers from a package's variable": {
				func(env *tenancytest.Env) handler {
					var (
						mu      sync.Mutex
						current []Order // of whoever came last
					)
					return func(ctx context.Context, w io.Writer) error {
						var all []Order
						if err := env.DB.WithContext(ctx).Find(&all).Error; err != nil {
							return err
						}
						mu.Lock()
						current = all
						mu.Unlock()
						var n int64
						if err := env.DB.WithContext(ctx).Model(&Line{}).Count(&n).Error; err != nil {
							return err
						}
						mu.Lock()
						defer mu.Unlock()
						return json.NewEncoder(w).Encode(current)
					}
				},
				[]string{"a call with one for the other tenant before its step 2 as isolated-1a", `its output holds "second order of isolated-1b"`},
			},
			"reads the tenant from a package's variable": {
				func(env *tenancytest.Env) handler {
					var (
						mu sync.Mutex
						db *gorm.DB
					)
					use := func(next *gorm.DB) *gorm.DB {
						mu.Lock()
						defer mu.Unlock()
						if next != nil {
							db = next
						}
						return db
					}
					return func(ctx context.Context, w io.Writer) error {
						use(env.DB.WithContext(context.WithoutCancel(ctx)))
						var n int64
						if err := use(nil).Model(&Order{}).Count(&n).Error; err != nil {
							return err
						}
						return list(use(nil), io.Discard)
					}
				},
				[]string{"before its step 1 as isolated-1a: a statement, with a ctx that is not its own, went to the database of isolated-1b: SELECT"},
			},
			"tells of it in an error": {
				func(env *tenancytest.Env) handler {
					var last string
					return func(ctx context.Context, w io.Writer) error {
						var o Order
						if err := env.DB.WithContext(ctx).First(&o, 2).Error; err != nil {
							return err
						}
						defer func() { last = o.Title }()
						if last != "" {
							return errors.New("expected " + last)
						}
						return nil
					}
				},
				[]string{`its output holds "second order of isolated-1a"`},
			},
			"over HTTP, escaped": {
				func(env *tenancytest.Env) handler {
					var once sync.Once
					var first handler
					return func(ctx context.Context, w io.Writer) error {
						once.Do(func() { first = overHTTP(env.DB.WithContext(context.WithoutCancel(ctx))) })
						return leakyHTTP(first, env.DB)(ctx, w)
					}
				},
				[]string{`its output holds "first <order> of isolated-1a"`},
			},
		} {
			t.Run(name, func(t *testing.T) {
				r := isolate(k, c.make)
				require.True(t, r.failed, "it passed")
				for _, text := range append(c.says, "not isolated") {
					require.Contains(t, r.said(), text)
				}
			})
		}
	})
}

// leakyHTTP keeps the answer to the first request, whoever asks next.
func leakyHTTP(h handler, db *gorm.DB) handler {
	leakyAnswer.Lock()
	defer leakyAnswer.Unlock()
	if leakyAnswer.db != db {
		leakyAnswer.db, leakyAnswer.text = db, ""
	}
	return func(ctx context.Context, w io.Writer) error {
		if err := db.WithContext(ctx).Find(&[]Order{}).Error; err != nil {
			return err
		}
		leakyAnswer.Lock()
		defer leakyAnswer.Unlock()
		if leakyAnswer.text == "" {
			var b strings.Builder
			if err := h(ctx, &b); err != nil {
				return err
			}
			leakyAnswer.text = b.String()
		}
		_, err := io.WriteString(w, leakyAnswer.text)
		return err
	}
}

var leakyAnswer struct {
	sync.Mutex
	db   *gorm.DB
	text string
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("there is none")
	}
	return v
}

// A handler that proves nothing fails too.
func TestIsolatedProvesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		reads := func(env *tenancytest.Env) handler {
			return func(ctx context.Context, w io.Writer) error { return list(env.DB.WithContext(ctx), w) }
		}
		same := func(_ context.Context, db *gorm.DB) error { return db.Create(&Order{Title: "the same for all"}).Error }
		short := func(ctx context.Context, db *gorm.DB) error {
			id, _ := tenant.ID(ctx)
			return db.Create(&Order{Title: id[len(id)-1:]}).Error
		}
		for name, c := range map[string]struct {
			make func(env *tenancytest.Env) handler
			seed func(ctx context.Context, db *gorm.DB) error
			says string
		}{
			"empty databases": {reads, func(context.Context, *gorm.DB) error { return nil }, "seed each tenant with a text of its own"},
			"the same texts":  {reads, same, "seed each tenant with a text of its own"},
			"short texts":     {reads, short, "5 bytes long at least"},
			"seed fails":      {reads, func(context.Context, *gorm.DB) error { return errors.New("no seeds") }, "seeding isolated-1a: no seeds"},
			"no statements": {func(*tenancytest.Env) handler {
				return func(context.Context, io.Writer) error { return nil }
			}, seedOrders, "the handler ran no statement in the database of isolated-1a"},
			"an error": {func(*tenancytest.Env) handler {
				return func(context.Context, io.Writer) error { return errors.New("out of order") }
			}, seedOrders, "the handler failed as isolated-1a: out of order"},
			"a panic": {func(*tenancytest.Env) handler {
				return func(context.Context, io.Writer) error { panic("at the disco") }
			}, seedOrders, "the handler panicked: at the disco"},
			"not found": {func(*tenancytest.Env) handler {
				return tenancytest.HTTP(http.NotFoundHandler(), func(ctx context.Context) (*http.Request, error) {
					return http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
				})
			}, seedOrders, "the handler answered 404 Not Found"},
			"not found, after hints": {func(*tenancytest.Env) handler {
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusEarlyHints)
					http.NotFound(w, r)
				})
				return tenancytest.HTTP(h, func(ctx context.Context) (*http.Request, error) {
					return http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
				})
			}, seedOrders, "the handler answered 404 Not Found"},
		} {
			t.Run(name, func(t *testing.T) {
				r := isolate(k, c.make, tenancytest.Seed(c.seed))
				require.True(t, r.failed, "it passed")
				require.Contains(t, r.said(), c.says)
			})
		}
	})
}

// One Env may try several handlers, with two new tenants each.
func TestIsolatedTwice(t *testing.T) {
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		record("TestX", func(r *recorder) {
			env := k.Env(r)
			for range 2 {
				tenancytest.RequireIsolated(r, env, func(ctx context.Context, w io.Writer) error {
					return list(env.DB.WithContext(ctx), w)
				}, tenancytest.Seed(seedOrders))
			}
		}).passes(t)
	})
}
