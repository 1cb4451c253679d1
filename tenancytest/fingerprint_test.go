package tenancytest

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"
)

// A fingerprint of models is the same for the same schema, and another one
// whenever AutoMigrate would do something else.
func TestAutoMigrateFingerprint(t *testing.T) {
	t.Parallel()
	print := func(config *gorm.Config, models ...any) string {
		t.Helper()
		a := AutoMigrate(models...).(*autoMigrator)
		bound := a.bind(struct{ Server }{}, Config{GORM: func() *gorm.Config { return config }})
		f, err := bound.(fingerprinted).fingerprint()
		require.NoError(t, err)
		return f
	}
	plain := &gorm.Config{}
	base := print(plain, orders1()...)
	require.Equal(t, base, print(plain, orders1()...))
	require.Equal(t, base, print(&gorm.Config{PrepareStmt: true}, orders1()...))

	seen := map[string]string{base: "base"}
	for name, f := range map[string]string{
		"a column":         print(plain, orders2()...),
		"a type":           print(plain, orders3()...),
		"an index":         print(plain, orders4()...),
		"a size":           print(plain, orders5()...),
		"an associate":     print(plain, orders6()...),
		"a check":          print(plain, orders7()...),
		"a default":        print(plain, orders8()...),
		"a name":           print(&gorm.Config{NamingStrategy: schema.NamingStrategy{SingularTable: true}}, orders1()...),
		"no foreign keys":  print(&gorm.Config{DisableForeignKeyConstraintWhenMigrating: true}, orders6()...),
		"no models at all": print(plain),
	} {
		require.Empty(t, seen[f], name)
		seen[f] = name
	}

	_, err := AutoMigrate(1).(*autoMigrator).bind(struct{ Server }{}, Config{}).(fingerprinted).fingerprint()
	require.ErrorContains(t, err, "is not a model")
}

func orders1() []any {
	type Order struct {
		ID    uint
		Title string
	}
	return []any{&Order{}}
}

func orders2() []any {
	type Order struct {
		ID    uint
		Title string
		Note  string
	}
	return []any{&Order{}}
}

func orders3() []any {
	type Order struct {
		ID    uint
		Title []byte
	}
	return []any{&Order{}}
}

func orders4() []any {
	type Order struct {
		ID    uint
		Title string `gorm:"index"`
	}
	return []any{&Order{}}
}

func orders5() []any {
	type Order struct {
		ID    uint
		Title string `gorm:"size:7"`
	}
	return []any{&Order{}}
}

func orders6() []any {
	type Line struct {
		ID      uint
		OrderID uint
	}
	type Order struct {
		ID    uint
		Title string
		Lines []Line
	}
	return []any{&Order{}}
}

func orders7() []any {
	type Order struct {
		ID    uint
		Title string `gorm:"check:title <> ''"`
	}
	return []any{&Order{}}
}

func orders8() []any {
	type Order struct {
		ID    uint
		Title string `gorm:"default:none"`
	}
	return []any{&Order{}}
}

func TestHashFS(t *testing.T) {
	t.Parallel()
	hash := func(name, content string) string {
		return HashFS(fstest.MapFS{name: {Data: []byte(content)}, "dir/other": {}})
	}
	base := hash("a", "x")
	require.Equal(t, base, hash("a", "x"))
	require.NotEqual(t, base, hash("b", "x"))
	require.NotEqual(t, base, hash("a", "y"))
	require.NotEqual(t, hash("a", "bx"), hash("ab", "x"))
}

func TestAutoMigrateUnbound(t *testing.T) {
	t.Parallel()
	_, err := AutoMigrate().Current(t.Context(), nil)
	require.ErrorIs(t, err, errUnbound)
	_, err = AutoMigrate().Up(t.Context(), nil, 1)
	require.ErrorIs(t, err, errUnbound)
}
