package catalog

import (
	"crypto/rand"
	"strings"
)

// namePrefix begins the name of every database that a catalog makes for a
// tenant, and templatePrefix that of its templates.
const (
	namePrefix     = "t_"
	templatePrefix = "tpl_"
)

// newUID returns a row's uid: 26 random letters and digits, 130 bits.
func newUID() string { return strings.ToLower(rand.Text()) }

// newDatabaseName returns the name of a new database. It is made once, stored,
// and never derived again: the id is in it for people only. The random part, 60
// bits, makes that no name comes twice, so that what was opened for a database
// that is gone never meets another one.
func newDatabaseName(id string) string {
	const longest = 24
	var slug strings.Builder
	for _, r := range strings.ToLower(id) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			slug.WriteRune(r)
		}
		if slug.Len() == longest {
			break
		}
	}
	name := namePrefix
	if slug.Len() > 0 {
		name += slug.String() + "_"
	}
	return name + strings.ToLower(rand.Text())[:12]
}

// templateName is the template's for one set of migrations on one server.
// Catalogs that share a server share no templates, nor do two servers of one
// catalog that are one in truth: the roles and their grants may differ.
func templateName(catalogID, server, fingerprint string) string {
	return templatePrefix + catalogID[:8] + "_" + digest(server+"\x00"+fingerprint)
}
