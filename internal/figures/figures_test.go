package figures

import (
	"strconv"
	"testing"
	"unicode/utf8"
)

func TestServer(t *testing.T) {
	for name, want := range map[string]string{
		"":                 "(unnamed)",
		"(unnamed)":        `"(unnamed)"`,
		"db1:5432":         "db1:5432",
		"/var/run/pg:5432": "/var/run/pg:5432",
		"zürich\n":         "zürich\n",
		"\xff":             `"\xff"`,
		`"\xff"`:           `"\"\\xff\""`,
	} {
		if got := Server(name); got != want {
			t.Errorf("Server(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzServer(f *testing.F) {
	for _, name := range []string{"", Unnamed, "db1:5432", "\xff", `"`, "\ufffd", "a\x00b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		label := Server(name)
		if label == "" || !utf8.ValidString(label) {
			t.Fatalf("Server(%q) = %q", name, label)
		}
		// The name can be told from the label, so no other has the same.
		back := label
		if unquoted, err := strconv.Unquote(label); err == nil && label[0] == '"' {
			back = unquoted
		} else if label == Unnamed {
			back = ""
		}
		if back != name {
			t.Fatalf("Server(%q) = %q, which is that of %q", name, label, back)
		}
	})
}
