package tenancy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// constants returns the values of file's constants of the type T.
func constants[T ~string](t *testing.T, file string) []T {
	typeName := reflect.TypeFor[T]().Name()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	var found []T
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == typeName {
			for _, v := range spec.Values {
				found = append(found, T(literal(t, v)))
			}
		}
		return true
	})
	require.NotEmpty(t, found)
	return found
}

func literal(t *testing.T, e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	require.True(t, ok, "%T", e)
	value, err := strconv.Unquote(lit.Value)
	require.NoError(t, err)
	return value
}

// warnings returns what the files in dir log with Logger.Warn.
func warnings(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var found []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Warn" {
				found = append(found, literal(t, call.Args[0]))
			}
			return true
		})
	}
	require.NotEmpty(t, found)
	return found
}

// section returns the part of page under a heading, without what is under
// further headings of the same or a lower level.
func section(t *testing.T, page, heading string) string {
	_, after, ok := strings.Cut(page, "\n"+heading+"\n")
	require.True(t, ok, heading)
	before, _, _ := strings.Cut(after, "\n#")
	return before
}

var firstCellRE = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// rows returns the first cell of each row that is a piece of code.
func rows[T ~string](text string) (found []T) {
	for _, m := range firstCellRE.FindAllStringSubmatch(text, -1) {
		found = append(found, T(m[1]))
	}
	return found
}

// TestObservabilityEvents finds each event, cause and warning in the page, and
// nothing there that is none.
func TestObservabilityEvents(t *testing.T) {
	text, err := os.ReadFile("docs/observability.md")
	require.NoError(t, err)
	page := string(text)
	kinds, causes := constants[tenancy.EventKind](t, "stats.go"), constants[tenancy.Cause](t, "stats.go")
	require.ElementsMatch(t, kinds, figures.Kinds)
	require.ElementsMatch(t, causes, figures.Causes)

	events := section(t, page, "## Events")
	of, causesOf, ok := strings.Cut(events, "The causes of `evicted`:")
	require.True(t, ok)
	of, _, ok = strings.Cut(of, "`failed` is told from its fields:")
	require.True(t, ok)
	require.ElementsMatch(t, kinds, rows[tenancy.EventKind](of))
	require.ElementsMatch(t, causes, rows[tenancy.Cause](causesOf))
	require.ElementsMatch(t, constants[migrate.EventKind](t, "migrate/options.go"), rows[migrate.EventKind](section(t, page, "### Of a migration run")))
	require.ElementsMatch(t, warnings(t, "catalog"), rows[string](section(t, page, "### Of the catalog")))
}

// TestObservabilityFigures finds each field of the statistics in the page's
// tables, and each field of an event in the table of events.
func TestObservabilityFigures(t *testing.T) {
	text, err := os.ReadFile("docs/observability.md")
	require.NoError(t, err)
	metrics := section(t, string(text), "## Metrics")
	for _, c := range []struct {
		of     reflect.Type
		column string
		but    string
	}{
		{reflect.TypeFor[tenancy.Stats](), "Of the plugin", "Servers"},
		{reflect.TypeFor[tenancy.ServerStats](), "Of each server", "Server"},
		{reflect.TypeFor[tenancy.TenantStats](), "Of tenants", "Tenant Server Replica Down"},
	} {
		_, table, ok := strings.Cut(metrics, "\n"+c.column)
		require.True(t, ok)
		table, _, _ = strings.Cut(table, "\nOf ")
		for i := range c.of.NumField() {
			if name := c.of.Field(i).Name; !strings.Contains(c.but, name) {
				require.Contains(t, table, " `"+name+"`", c.of)
			}
		}
	}
	events := section(t, string(text), "## Events")
	for i := range reflect.TypeFor[tenancy.Event]().NumField() {
		if name := reflect.TypeFor[tenancy.Event]().Field(i).Name; name != "Kind" {
			require.Contains(t, events, "`"+name+"`")
		}
	}
}

var goBlockRE = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestObservabilityCode finds each piece of Go of the page in an example, so
// that it compiles.
func TestObservabilityCode(t *testing.T) {
	text, err := os.ReadFile("docs/observability.md")
	require.NoError(t, err)
	examples := ""
	for _, pattern := range []string{"example_*test.go", "*/example_test.go", "contrib/*/example_test.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			examples += unindented(string(source))
		}
	}
	blocks := goBlockRE.FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		require.True(t, strings.Contains(examples, unindented(b[1])), "no example has:\n%s", b[1])
	}
}

func unindented(code string) string {
	lines := strings.Split(strings.TrimSpace(code), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}
