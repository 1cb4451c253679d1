package sandbox

import (
	"fmt"
	"regexp"
	"strings"
)

// space is what may stand before a statement: white space, empty statements and
// comments (not nested ones).
var space = regexp.MustCompile(`^(?:[\s;]+|--[^\n]*(?:\n|$)|/\*(?s:.*?)\*/)+`)

var word = regexp.MustCompile(`^[a-zA-Z]+`)

// words returns the first words of query, in upper case.
func words(query string, n int) []string {
	all := make([]string, n) // "" where there is none
	for i := range all {
		query = query[len(space.FindString(query)):]
		all[i] = word.FindString(query)
		query = query[len(all[i]):]
		all[i] = strings.ToUpper(all[i])
	}
	return all
}

// refuse returns an error for a query that would begin or end a transaction: at
// the server that is the sandbox's own. Only the first statement of several is
// looked at.
func refuse(query string) error {
	w := words(query, 3)
	switch w[0] {
	case "BEGIN", "COMMIT", "END", "ABORT":
	case "START", "PREPARE":
		if w[1] != "TRANSACTION" {
			return nil
		}
	case "ROLLBACK":
		if w[1] == "TO" || (w[1] == "WORK" || w[1] == "TRANSACTION") && w[2] == "TO" {
			return nil
		}
	default:
		return nil
	}
	return fmt.Errorf("sandbox: %s as a statement would meet the sandbox's own transaction: "+
		"use Begin, Commit and Rollback of GORM or database/sql, or give the test a database of its own (Env.Clone instead of Env.Tenant)", w[0])
}

// ddl matches what may change a schema. False alarms cost little.
var ddl = regexp.MustCompile(`(?i)\b(?:create|alter|drop)\b`)
