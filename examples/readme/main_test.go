package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func Example() {
	main()
	// Output:
	// first order of acme
	// true
}

// TestReadme keeps the program in README.md and this one the same.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(readme), "```go\npackage main\n")
	require.True(t, ok, "README.md has no program")
	block, _, ok := strings.Cut(rest, "```\n")
	require.True(t, ok, "the program in README.md does not end")

	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	_, own, ok := strings.Cut(string(program), "package main\n")
	require.True(t, ok)
	require.Equal(t, own, block, "copy examples/readme/main.go, from its package clause on, into README.md")
}
