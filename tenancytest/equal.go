package tenancytest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// EqualOption changes what [Equal] compares.
type EqualOption func(*comparison)

// Ignore leaves fields out: by their name, wherever they are, or by the path
// from the row, without indices: "ID", "Lines.ID".
func Ignore(fields ...string) EqualOption {
	return func(c *comparison) {
		for _, f := range fields {
			c.ignored[f] = true
		}
	}
}

// IgnoreTimestamps leaves out CreatedAt, UpdatedAt and DeletedAt, the fields of
// gorm.Model.
func IgnoreTimestamps() EqualOption { return Ignore("CreatedAt", "UpdatedAt", "DeletedAt") }

// Equal reports whether got is want, both rows, pointers to rows or slices of
// either, with their associations. If not, the test fails, and its log says
// where they differ. Rows of a slice are compared in their order.
//
// What a database does to values is no difference:
//   - A [tenancy.Stamp] does not count.
//   - Times are equal less than a microsecond apart, in whatever zone:
//     PostgreSQL keeps microseconds.
//   - A nil slice or map equals an empty one.
//   - A value whose type has a method Equal is asked.
//
// A nil pointer, which NULL is loaded into, equals no other pointer.
func Equal(t TB, want, got any, opts ...EqualOption) bool {
	t.Helper()
	c := &comparison{ignored: map[string]bool{}, seen: map[visit]bool{}}
	for _, opt := range opts {
		opt(c)
	}
	w, g := row(reflect.ValueOf(want)), row(reflect.ValueOf(got))
	c.values("", "", w, g)
	if len(c.diffs) == 0 {
		return true
	}
	t.Errorf("tenancytest: not equal:\n%s", c.report())
	return false
}

// row returns what v points to, so that a row equals a pointer to one.
func row(v reflect.Value) reflect.Value {
	for v.IsValid() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && !v.IsNil() {
		v = v.Elem()
	}
	return v
}

// comparison is one call of Equal.
type comparison struct {
	ignored map[string]bool
	seen    map[visit]bool
	diffs   []string
}

// visit is a pair of pointers that is compared: rows may point to one another.
type visit struct {
	want, got uintptr
	typ       reflect.Type
}

func (c *comparison) differ(at, format string, args ...any) {
	if at == "" {
		at = "the value"
	}
	c.diffs = append(c.diffs, at+": "+fmt.Sprintf(format, args...))
}

func (c *comparison) report() string { return listed(c.diffs) }

// listed is what a failed test says of lines: a few of them.
func listed(lines []string) string {
	const most = 20
	shown := lines[:min(len(lines), most)]
	text := "  " + strings.Join(shown, "\n  ")
	if more := len(lines) - len(shown); more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return text
}

var (
	stampType = reflect.TypeFor[tenancy.Stamp]()
	timeType  = reflect.TypeFor[time.Time]()
)

// values compares two values at a place, whose name without indices is path.
func (c *comparison) values(at, path string, want, got reflect.Value) {
	switch {
	case !want.IsValid() || !got.IsValid():
		if want.IsValid() != got.IsValid() {
			c.differ(at, "want %s, got %s", show(want), show(got))
		}
		return
	case want.Type() != got.Type():
		c.differ(at, "want a %s, got a %s", want.Type(), got.Type())
		return
	case want.Type() == timeType && want.CanInterface() && got.CanInterface():
		apart := want.Interface().(time.Time).Sub(got.Interface().(time.Time))
		if apart.Abs() >= time.Microsecond {
			c.differ(at, "want %s, got %s", show(want), show(got))
		}
		return
	}
	if same, ok := callEqual(want, got); ok {
		if !same {
			c.differ(at, "want %s, got %s", show(want), show(got))
		}
		return
	}
	switch want.Kind() {
	case reflect.Pointer, reflect.Interface:
		c.pointers(at, path, want, got)
	case reflect.Struct:
		c.structs(at, path, want, got)
	case reflect.Slice, reflect.Array:
		c.lists(at, path, want, got)
	case reflect.Map:
		c.maps(at, path, want, got)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		if want.Pointer() != got.Pointer() {
			c.differ(at, "want %s, got another", want.Type())
		}
	default:
		if !want.Equal(got) && (want.Equal(want) || got.Equal(got)) { // two NaN are no difference
			c.differ(at, "want %s, got %s", show(want), show(got))
		}
	}
}

func (c *comparison) pointers(at, path string, want, got reflect.Value) {
	if want.IsNil() || got.IsNil() {
		if want.IsNil() != got.IsNil() {
			c.differ(at, "want %s, got %s", show(want), show(got))
		}
		return
	}
	if want.Kind() == reflect.Pointer {
		v := visit{want.Pointer(), got.Pointer(), want.Type()}
		if c.seen[v] {
			return
		}
		c.seen[v] = true
	}
	c.values(at, path, want.Elem(), got.Elem())
}

func (c *comparison) structs(at, path string, want, got reflect.Value) {
	t := want.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type == stampType || f.Type == reflect.PointerTo(stampType) {
			continue
		}
		fieldAt, fieldPath := at, path
		if !f.Anonymous { // an embedded struct's fields are the row's own
			fieldAt, fieldPath = join(at, f.Name), join(path, f.Name)
		}
		if c.ignored[f.Name] || c.ignored[fieldPath] && !f.Anonymous {
			continue
		}
		c.values(fieldAt, fieldPath, want.Field(i), got.Field(i))
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (c *comparison) lists(at, path string, want, got reflect.Value) {
	if want.Type().Elem().Kind() == reflect.Uint8 {
		if !slices.Equal(octets(want), octets(got)) {
			c.differ(at, "want %s, got %s", show(want), show(got))
		}
		return
	}
	if want.Len() != got.Len() {
		c.differ(at, "want length %d, got %d", want.Len(), got.Len())
	}
	for i := range max(want.Len(), got.Len()) {
		here := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case i >= got.Len():
			c.differ(here, "missing: %s", show(want.Index(i)))
		case i >= want.Len():
			c.differ(here, "not wanted: %s", show(got.Index(i)))
		default:
			c.values(here, path, want.Index(i), got.Index(i))
		}
	}
}

func octets(v reflect.Value) []byte {
	all := make([]byte, v.Len())
	for i := range all {
		all[i] = byte(v.Index(i).Uint())
	}
	return all
}

func (c *comparison) maps(at, path string, want, got reflect.Value) {
	keys := map[string]reflect.Value{}
	for _, m := range []reflect.Value{want, got} {
		for _, k := range m.MapKeys() {
			keys[show(k)] = k
		}
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		here := fmt.Sprintf("%s[%s]", at, name)
		w, g := want.MapIndex(keys[name]), got.MapIndex(keys[name])
		switch {
		case !g.IsValid():
			c.differ(here, "missing: %s", show(w))
		case !w.IsValid():
			c.differ(here, "not wanted: %s", show(g))
		default:
			c.values(here, path, w, g)
		}
	}
}

// callEqual calls want.Equal(got), if there is such a method.
func callEqual(want, got reflect.Value) (same, ok bool) {
	if !want.CanInterface() || !got.CanInterface() || want.Kind() == reflect.Interface ||
		want.Kind() == reflect.Pointer && (want.IsNil() || got.IsNil()) {
		return false, false
	}
	m := want.MethodByName("Equal")
	if !m.IsValid() {
		return false, false
	}
	t := m.Type()
	if t.NumIn() != 1 || t.NumOut() != 1 || t.In(0) != want.Type() || t.Out(0).Kind() != reflect.Bool {
		return false, false
	}
	return m.Call([]reflect.Value{got})[0].Bool(), true
}
