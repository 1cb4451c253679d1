// Package soak has no code, only tests: tenants in the hundreds on real
// PostgreSQL servers, and what is promised of their pools while connections are
// short, statements are cancelled, and servers die, hang or refuse.
//
// Each test starts servers of its own, since most of them break one. All of
// them take a minute or so; for longer runs of those that are a load:
//
//	go test -race ./internal/soak -soak 5m -timeout 30m
package soak
