#!/bin/sh
# Runs the tests of every module. Arguments go to "go test". The race detector
# is on where it can be: it needs cgo and a C compiler. RACE=1 demands it,
# RACE=0 forbids it.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh

cc=$(go env CC)
cc=${cc%% *}
race=
case "${RACE:-auto}" in
0) echo "race detector: off (RACE=0)" ;;
1) race=-race ;;
*)
	if [ "$(go env CGO_ENABLED)" != 1 ]; then
		echo "race detector: off, cgo is disabled"
	elif ! command -v "$cc" >/dev/null; then
		echo "race detector: off, there is no C compiler ($cc)"
	else
		race=-race
	fi
	;;
esac
if [ -n "$race" ]; then
	echo "race detector: on, with $cc; SQLite's own code is left out"
	export CGO_ENABLED=1
	# SQLite, translated from C, takes care of its own locks, and takes most of
	# the time if it is watched too. The driver that calls it is watched.
	race="$race -gcflags=modernc.org/...=-race=false"
fi

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
