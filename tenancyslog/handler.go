// Package tenancyslog adds the tenant to what is logged with log/slog: to each
// record whose context carries one.
//
//	slog.SetDefault(slog.New(tenancyslog.NewHandler(slog.NewJSONHandler(os.Stderr, nil), nil)))
//	slog.InfoContext(ctx, "invoice sent") // {..., "msg":"invoice sent","tenant":"acme"}
//
// Only calls that pass a context are: slog.InfoContext, not slog.Info.
package tenancyslog

import (
	"context"
	"log/slog"
	"slices"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// DefaultKey is the attribute's key when [Options] has none.
const DefaultKey = "tenant"

// Options are what may be chosen. The zero value is good.
type Options struct {
	// Key is the attribute's key. Defaults to [DefaultKey].
	Key string
}

// Handler is a [slog.Handler] that hands records on to another, with the
// tenant of their context as the last attribute. It is at the top level, outside
// of all groups, so that it is found in the same place in every line.
//
// The value is the tenant's id. It is "_main", which can't be an id, when the
// main database is meant ([tenant.Main]). A context that names no tenant, an
// invalid one, or another than it is pinned to adds nothing.
type Handler struct {
	key string
	// next has all attributes and groups that were added to this handler.
	next slog.Handler
	// outer is next without groups and what is in them, which are in groups.
	// They are put into the record if there is a tenant to put beside them:
	// next would put it inside.
	outer  slog.Handler
	groups []group
}

// group is an open group, with the attributes that were added to it.
type group struct {
	name  string
	attrs []slog.Attr
}

// NewHandler returns a Handler that hands records on to next. opts may be nil.
func NewHandler(next slog.Handler, opts *Options) *Handler {
	h := &Handler{key: DefaultKey, next: next, outer: next}
	if opts != nil && opts.Key != "" {
		h.key = opts.Key
	}
	return h
}

// Enabled asks the handler behind.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle adds the tenant of ctx, and hands r on. The error is the handler's
// behind.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	id := scope.From(ctx).Name()
	if id == "" {
		return h.next.Handle(ctx, r)
	}
	if len(h.groups) == 0 {
		r = r.Clone()
		r.AddAttrs(slog.String(h.key, id))
		return h.next.Handle(ctx, r)
	}
	out := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	out.AddAttrs(h.nest(r), slog.String(h.key, id))
	return h.outer.Handle(ctx, out)
}

// nest returns the open groups, one in the other, with r's attributes in the
// innermost.
func (h *Handler) nest(r slog.Record) slog.Attr {
	n := r.NumAttrs() + len(h.groups) - 1
	for _, g := range h.groups {
		n += len(g.attrs)
	}
	attrs := make([]slog.Attr, 0, n) // of all groups, the innermost first
	var inner slog.Attr
	for i, g := range slices.Backward(h.groups) {
		start := len(attrs)
		attrs = append(attrs, g.attrs...)
		if i == len(h.groups)-1 {
			r.Attrs(func(a slog.Attr) bool {
				attrs = append(attrs, a)
				return true
			})
		} else {
			attrs = append(attrs, inner)
		}
		inner = slog.Attr{Key: g.name, Value: slog.GroupValue(attrs[start:]...)}
	}
	return inner
}

// WithAttrs returns a handler whose records have attrs, in the group that is
// open.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	c := *h
	c.next = h.next.WithAttrs(attrs)
	if len(h.groups) == 0 {
		c.outer = c.next
		return &c
	}
	c.groups = slices.Clone(h.groups)
	last := &c.groups[len(c.groups)-1]
	last.attrs = slices.Concat(last.attrs, attrs)
	return &c
}

// WithGroup returns a handler that puts what is added from now on, but for the
// tenant, into the group of that name.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.next = h.next.WithGroup(name)
	c.groups = append(slices.Clone(h.groups), group{name: name})
	return &c
}
