package tenancy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// FuzzSQLComment shows that no id ends the comment or its quotes. Ids that are
// not valid never come so far.
func FuzzSQLComment(f *testing.F) {
	for _, id := range []string{"acme", "01J-X_y", "", "_main", "a'*/ DROP TABLE x; /*'", "a*/", "a'b", "a\\", "a\x00", "ä", "a%27", "a\n--"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		comment := sqlComment(id)
		if comment == "" {
			return
		}
		assert.Equal(t, "/*tenant='"+id+"'*/", comment)
		inside := strings.TrimSuffix(strings.TrimPrefix(comment, "/*tenant='"), "'*/")
		assert.Empty(t, strings.Trim(inside, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"))
	})
}
