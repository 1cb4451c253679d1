package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the output of the commands into docs/cli.md")

const page = "../../docs/cli.md"

// TestDocs runs the console blocks of docs/cli.md in their order, in one place
// on SQLite, and compares the output with what the page holds. A block with a
// file's name behind its language is that file; "console terminal" is a person's
// terminal, whose progress bar is shown as it was at the end.
func TestDocs(t *testing.T) {
	t.Parallel()
	p := &place{dir: t.TempDir()}
	bin := t.TempDir()
	self, err := filepath.Abs(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(bin, "tenancy")))
	p.env = []string{"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH")}

	text, err := os.ReadFile(page)
	require.NoError(t, err)
	got := blockRE.ReplaceAllStringFunc(string(text), func(block string) string {
		m := blockRE.FindStringSubmatch(block)
		language, name, body := m[1], m[2], m[3]
		switch {
		case language != "console" && name != "":
			p.write(t, name, body)
		case language == "console":
			var b strings.Builder
			for line := range strings.Lines(body) {
				if command, ok := strings.CutPrefix(line, "$ "); ok {
					shown := p.shell(t, strings.TrimSpace(command), name == "terminal")
					b.WriteString(line + normal(strings.ReplaceAll(shown, p.dir, "/srv/shop")))
				}
			}
			return strings.TrimSuffix(m[0], body+"```\n") + b.String() + "```\n"
		}
		return block
	})
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(got), 0o644))
		return
	}
	require.Equal(t, string(text), got, "go test -run TestDocs -update . writes it")
}

var blockRE = regexp.MustCompile("(?ms)^```([a-z]+)(?: (\\S+))?\n(.*?)^```\n")

// shell runs a line of the page.
func (p *place) shell(t *testing.T, line string, terminal bool) string {
	t.Helper()
	if terminal {
		args := strings.Fields(line)
		term := p.terminal(t, args[1:]...)
		_, seen := term.ends(t)
		var b strings.Builder
		for line := range strings.Lines(strings.ReplaceAll(seen, "\r\n", "\n")) {
			b.WriteString(line[strings.LastIndex(line, "\r")+1:])
		}
		return b.String()
	}
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = p.dir, p.command().Env
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", line, out)
	return string(out)
}

// normal replaces what differs each time.
func normal(out string) string {
	for _, r := range []struct {
		re *regexp.Regexp
		to string
	}{
		{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "2026-11-24 09:30:00"},
		{regexp.MustCompile(`\b[a-z2-7]{26}\b`), "kq3v7dmn2xw4zr5ytbo6uahces"},
		{regexp.MustCompile(`\b(t_[a-z0-9]+_)[a-z2-7]{12}\b`), "${1}m4x7qk2vdz3w"},
		{regexp.MustCompile(`goose-[0-9a-f]{64}`), "goose-5f1c...e2a9"},
		{regexp.MustCompile(`\b\d+(\.\d+)?(ms|s)\b`), "20ms"},
		{regexp.MustCompile(`\d+ tenants/(s|min)`), "90 tenants/s"},
		{regexp.MustCompile(`\[20ms:20ms\]`), "[0s:0s]"},
		{regexp.MustCompile(`\(go1[^)]*\)`), "(go1.26)"},
	} {
		out = r.re.ReplaceAllString(out, r.to)
	}
	return out
}
