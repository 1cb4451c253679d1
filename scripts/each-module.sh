#!/bin/sh
# Runs a command in each module, also after one failed, and fails if any did:
#   scripts/each-module.sh go vet ./...
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
failed=
for module in $(scripts/modules.sh); do
	echo "== $module: $*"
	cd "$root/$module" || exit 1
	"$@" || failed="$failed $module"
done
if [ -n "$failed" ]; then
	echo "failed in:$failed" >&2
	exit 1
fi
