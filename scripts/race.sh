#!/bin/sh
# Prints the flags with which tests are compiled: for the race detector, if it
# can be had. It needs cgo and a C compiler. RACE=1 demands it, RACE=0 forbids it.
# What was decided goes to standard error.
set -eu
cc=$(go env CC)
cc=${cc%% *}
case "${RACE:-auto}" in
0)
	echo "race detector: off (RACE=0)" >&2
	exit 0
	;;
1) ;;
*)
	if [ "$(go env CGO_ENABLED)" != 1 ]; then
		echo "race detector: off, cgo is disabled" >&2
		exit 0
	elif ! command -v "$cc" >/dev/null; then
		echo "race detector: off, there is no C compiler ($cc)" >&2
		exit 0
	fi
	;;
esac
echo "race detector: on, with $cc; SQLite's own code is left out" >&2
# SQLite, translated from C, takes care of its own locks, and takes most of the
# time if it is watched too. The driver that calls it is watched.
echo "-race -gcflags=modernc.org/...=-race=false"
