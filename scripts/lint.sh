#!/bin/sh
# What a change must satisfy besides the tests. All checks run, whatever fails.
# With LINT_AS_TESTED=1 what is checked is compiled with the tests' flags: right
# after them there is nothing left to compile, which saves minutes.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
failed=
check() { # name, command...
	name=$1
	shift
	echo "== $name"
	"$@" || failed="$failed
  $name"
}

staticcheck=$(go tool -modfile=tools/go.mod -n staticcheck) || exit 1 # the program itself

formatted() {
	files=$(gofmt -l .)
	[ -z "$files" ] && return
	echo "not formatted; run gofmt -w on:
$files"
	return 1
}

# The root is what everybody imports: whoever uses one engine must not build
# the other one's driver. The same goes for the tests of an application, where
# two SQLite drivers of one name would panic.
no_driver() {
	deps=$(go list -deps . ./tenancytest ./tenancytest/enginetest) || return 1
	found=$(echo "$deps" | grep -E '^(github\.com/(jackc/|glebarez/|lib/pq|mattn/go-sqlite3)|modernc\.org/|gorm\.io/driver/)')
	[ -z "$found" ] && return
	echo "packages tenancy and tenancytest must not depend on a driver, but do on:
$found"
	return 1
}

# Packages tenant and tenancyslog are imported by every layer of an application.
is_light() {
	module=$(go list -m) || return 1
	deps=$(go list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' ./tenant ./tenancyslog) || return 1
	found=$(echo "$deps" | grep -vxF -e "$module/tenant" -e "$module/tenancyslog" -e "$module/internal/scope")
	[ -z "$found" ] && return
	echo "packages tenant and tenancyslog may depend on the standard library and internal/scope only, but do on:
$found"
	return 1
}

# Whoever writes a web server chooses its framework, not we. What they import of
# internal/ is part of the check.
http_is_plain() {
	module=$(go list -m) || return 1
	imports=$(go list -f '{{join .Imports "\n"}}' ./tenancyhttp ./tenancystatus ./internal/refusal ./internal/figures) || return 1
	found=$(echo "$imports" | grep -F . | grep -vxF -e "$module" -e "$module/tenant" \
		-e "$module/internal/refusal" -e "$module/internal/figures")
	[ -z "$found" ] && return
	echo "packages tenancyhttp and tenancystatus may import the standard library, the root, tenant, and of internal refusal and figures, but do:
$found"
	return 1
}

check "gofmt" formatted
check "the root and tenancytest import no driver" no_driver
check "packages tenant and tenancyslog are light" is_light
check "packages tenancyhttp and tenancystatus are net/http alone" http_is_plain
if [ "${LINT_AS_TESTED:-}" = 1 ] && race=$(scripts/race.sh) && [ -n "$race" ]; then
	check "go vet, without the race detector" go -C bench vet . # the one module with files that are for that alone
	CGO_ENABLED=1 GOFLAGS="$race ${GOFLAGS:-}"
	export CGO_ENABLED GOFLAGS
fi
check "go vet" scripts/each-module.sh go vet ./...
check "staticcheck" scripts/each-module.sh "$staticcheck" ./...
check "go.mod and go.sum are tidy" scripts/each-module.sh go mod tidy -diff
check "tools/go.mod is tidy" go -C tools mod tidy -diff

if [ -n "$failed" ]; then
	echo "lint failed:$failed" >&2
	exit 1
fi
