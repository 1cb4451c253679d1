#!/bin/sh
# Prints the directory of each Go module of the repository, the root's first.
# tools is left out: it only pins programs.
set -eu
cd "$(dirname "$0")/.."
echo .
find . -name go.mod ! -path ./go.mod ! -path './tools/*' ! -path '*/testdata/*' ! -path '*/.*/*' |
	sed 's|^\./||; s|/go\.mod$||' | sort
