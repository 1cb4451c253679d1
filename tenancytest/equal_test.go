package tenancytest_test

import (
	"database/sql"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancytest"
)

type node struct {
	gorm.Model
	Name   string
	Note   *string
	Data   []byte
	At     time.Time
	Score  float64
	Maybe  sql.NullInt64
	Attrs  map[string]any
	Parent *node
	Nodes  []*node
	tenancy.Stamp
}

// amount is a value that knows by itself what is equal.
type amount struct{ cents, scale int }

func (a amount) Equal(b amount) bool { return a.cents*b.scale == b.cents*a.scale }
func (a amount) String() string      { return strings.Repeat("c", a.cents) }

func differences(want, got any, opts ...tenancytest.EqualOption) (equal bool, said string) {
	r := record("TestDiff", func(r *recorder) { equal = tenancytest.Equal(r, want, got, opts...) })
	if equal == r.failed {
		panic("Equal says one thing and does the other")
	}
	return equal, r.said()
}

func TestEqual(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 3, 4, 5, 6, 789123456, time.UTC)
	note, same := "x", "x"
	cycle := func(name string) *node {
		n := &node{Name: name}
		n.Nodes = []*node{{Name: "child", Parent: n}}
		return n
	}
	ones := []tenancytest.EqualOption{tenancytest.IgnoreTimestamps()}
	for name, c := range map[string]struct {
		want, got any
		opts      []tenancytest.EqualOption
	}{
		"values":             {node{Name: "a"}, node{Name: "a"}, nil},
		"a pointer":          {node{Name: "a"}, &node{Name: "a"}, nil},
		"pointers' targets":  {node{Note: &note}, node{Note: &same}, nil},
		"microseconds":       {node{At: at}, node{At: at.Truncate(time.Microsecond)}, nil},
		"rounded":            {node{At: at}, node{At: at.Round(time.Microsecond)}, nil},
		"zones":              {node{At: at}, node{At: at.In(time.FixedZone("", 3600))}, nil},
		"nil and empty":      {node{Data: []byte{}, Nodes: []*node{}}, node{Attrs: map[string]any{}}, nil},
		"timestamps ignored": {node{}, node{Model: gorm.Model{CreatedAt: at, UpdatedAt: at, DeletedAt: gorm.DeletedAt{Time: at, Valid: true}}}, ones},
		"a name ignored":     {node{Nodes: []*node{{Name: "a"}}}, node{Name: "b"}.with(node{Name: "c"}), []tenancytest.EqualOption{tenancytest.Ignore("Name")}},
		"a path ignored":     {node{Name: "b", Nodes: []*node{{Name: "a"}}}, node{Name: "b"}.with(node{Name: "c"}), []tenancytest.EqualOption{tenancytest.Ignore("Nodes.Name")}},
		"in rows of a list":  {[]node{{Name: "x"}}, []node{{}}, []tenancytest.EqualOption{tenancytest.Ignore("Name")}},
		"cycles":             {cycle("a"), cycle("a"), nil},
		"its own Equal":      {struct{ A amount }{amount{1, 1}}, struct{ A amount }{amount{2, 2}}, nil},
		"NaN":                {node{Score: math.NaN()}, node{Score: math.NaN()}, nil},
		"nil":                {nil, nil, nil},
	} {
		equal, said := differences(c.want, c.got, c.opts...)
		require.True(t, equal, "%s: %s", name, said)
	}
}

func (n node) with(child node) node {
	n.Nodes = append(n.Nodes, &child)
	return n
}

func TestNotEqual(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	note := "x"
	for says, c := range map[string]struct {
		want, got any
		opts      []tenancytest.EqualOption
	}{
		`Name: want "a", got "b"`:                                               {node{Name: "a"}, &node{Name: "b"}, nil},
		`ID: want 1, got 2`:                                                     {node{Model: gorm.Model{ID: 1}}, node{Model: gorm.Model{ID: 2}}, nil},
		`[1].Name: want "a", got ""`:                                            {[]node{{}, {Name: "a"}}, []node{{}, {}}, nil},
		`Nodes[0].Name: want "a", got "c"`:                                      {node{}.with(node{Name: "a"}), node{}.with(node{Name: "c"}), nil},
		`Nodes[0]: not wanted: {Name:"c"}`:                                      {node{}, node{}.with(node{Name: "c"}), nil},
		`the value: want length 1, got 0`:                                       {[]node{{}}, []node{}, nil},
		`[0]: missing: {Name:"a" Data:"b"}`:                                     {[]node{{Name: "a", Data: []byte("b")}}, []node(nil), nil},
		`Note: want "x", got nil`:                                               {node{Note: &note}, node{}, nil},
		`At: want 2026-02-03T04:05:06Z, got 2026-02-03T04:05:06.000001Z`:        {node{At: at}, node{At: at.Add(time.Microsecond)}, nil},
		`Data: want "\x00\x01", got ""`:                                         {node{Data: []byte{0, 1}}, node{}, nil},
		`Maybe.Valid: want true, got false`:                                     {node{Maybe: sql.NullInt64{Valid: true}}, node{}, nil},
		`Attrs["a"]: want 1, got 2`:                                             {node{Attrs: map[string]any{"a": 1}}, node{Attrs: map[string]any{"a": 2}}, nil},
		`Attrs["a"]: missing: 1`:                                                {node{Attrs: map[string]any{"a": 1}}, node{}, nil},
		`Attrs["a"]: want a int, got a string`:                                  {node{Attrs: map[string]any{"a": 1}}, node{Attrs: map[string]any{"a": "1"}}, nil},
		`DeletedAt.Valid: want false, got true`:                                 {node{}, node{Model: gorm.Model{DeletedAt: gorm.DeletedAt{Valid: true}}}, nil},
		`A: want c, got cc`:                                                     {struct{ A amount }{amount{1, 1}}, struct{ A amount }{amount{2, 1}}, nil},
		`the value: want nothing, got {}`:                                       {nil, node{}, nil},
		`the value: want a tenancytest_test.Order, got a tenancytest_test.Line`: {Order{}, Line{}, nil},
		`Score: want NaN, got 1`:                                                {node{Score: math.NaN()}, node{Score: 1}, nil},
		`Name: want "z", got ""`:                                                {node{Name: "z"}.with(node{}), node{}.with(node{Name: "c"}), []tenancytest.EqualOption{tenancytest.Ignore("Nodes.Name")}},
		"and 80 more":                                                           {make([]node, 100), withNames(100), nil},
	} {
		equal, said := differences(c.want, c.got, c.opts...)
		require.False(t, equal, says)
		require.Contains(t, said, says)
	}
}

func withNames(n int) []node {
	all := make([]node, n)
	for i := range all {
		all[i].Name = "x"
	}
	return all
}

// What comes out of a database is what went in.
func TestEqualRows(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		type Event struct {
			gorm.Model
			At   time.Time
			Data []byte
			tenancy.Stamp
		}
		env := newKit(t, tenancytest.Config{Backend: b, Migrator: tenancytest.AutoMigrate(&Event{})}).Env(t)
		db := env.DB.WithContext(env.Tenant("acme"))
		made := []Event{{At: time.Now()}, {At: time.Now(), Data: []byte("x")}}
		require.NoError(t, db.Create(&made).Error)
		var got []Event
		require.NoError(t, db.Order("id").Find(&got).Error)
		tenancytest.Equal(t, made, got)
		tenancytest.Equal(t, []Event{{At: made[0].At}, {At: made[1].At, Data: []byte("x")}}, got, tenancytest.IgnoreTimestamps(), tenancytest.Ignore("ID"))
		equal, said := differences(made, got[:1])
		require.False(t, equal)
		require.Contains(t, said, "[1]: missing: {")
	})
}
