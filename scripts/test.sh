#!/bin/sh
# Runs the tests of every module. Arguments go to "go test". The race detector
# is on where it can be: it needs cgo and a C compiler. RACE=1 demands it,
# RACE=0 forbids it.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh

race=$(scripts/race.sh)
[ -z "$race" ] || export CGO_ENABLED=1

# A test that can't have PostgreSQL, PgBouncer or a browser fails here; with a
# plain "go test" it is skipped.
export TENANCY_TEST_REQUIRE_PG=1
export TENANCY_TEST_REQUIRE_BROWSER="${TENANCY_TEST_REQUIRE_BROWSER:-1}"
scripts/each-module.sh go test $race -count=1 -timeout=20m "$@" ./...

# Allocations can't be counted under the race detector.
if [ -n "$race" ]; then
	echo "== bench: go test -run TestAllocs"
	go -C bench test -count=1 -run TestAllocs .
fi
