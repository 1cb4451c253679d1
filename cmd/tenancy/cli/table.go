package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// table prints rows in columns as they come: a batch at a time, and the header
// again only when the columns change. Columns are never made narrower, so that
// batches stand below each other.
type table struct {
	w      io.Writer
	header []string
	widths []int
}

// print prints a batch.
func (t *table) print(header []string, rows [][]string) error {
	again := !slices.Equal(header, t.header)
	if again {
		t.header, t.widths = header, make([]int, len(header))
	}
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			row[i] = printable(cell)
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	if again {
		rows = append([][]string{header}, rows...)
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// printable makes what came from outside harmless to a terminal.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	// Quotes and backslashes that were there stay as they are.
	var b strings.Builder
	for i := 1; i < len(quoted)-1; i++ {
		if quoted[i] == '\\' && (quoted[i+1] == '"' || quoted[i+1] == '\\') {
			i++
		}
		b.WriteByte(quoted[i])
	}
	return b.String()
}

// labelList is labels in a cell.
func labelList(labels map[string]string) string {
	var parts []string
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func tenants(n int) string { return count(n, "tenant", "tenants") }

// moment is a time in a cell.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
