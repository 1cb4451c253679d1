#!/bin/sh
# Makes sure that tests find PostgreSQL, PgBouncer and Chromium: nothing to do if
# their programs are there; installs them on Debian and Ubuntu when run as root;
# otherwise says what to install. TENANCY_TEST_DSN names a server instead of the
# first two, and TENANCY_TEST_REQUIRE_BROWSER=0 goes without the third.
set -eu

# The places are those of internal/pgtest/binaries.go.
find_postgres() {
	old_ifs=$IFS
	IFS=:
	for dir in $PATH; do
		if [ -x "$dir/initdb" ]; then
			real=$(dirname "$(readlink -f "$dir/initdb" 2>/dev/null || echo "$dir/initdb")")
			if [ -x "$real/postgres" ] || [ -x "$dir/postgres" ]; then
				IFS=$old_ifs
				echo "$dir"
				return 0
			fi
		fi
	done
	IFS=$old_ifs
	for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin \
		/usr/local/opt/postgresql@*/bin /usr/local/pgsql/bin /Applications/Postgres.app/*/*/*/bin; do
		if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
			echo "$dir"
			return 0
		fi
	done
	return 1
}

find_pgbouncer() {
	command -v pgbouncer && return 0
	for file in /usr/sbin/pgbouncer /usr/bin/pgbouncer /usr/local/sbin/pgbouncer /usr/local/bin/pgbouncer \
		/opt/homebrew/bin/pgbouncer; do
		if [ -x "$file" ]; then
			echo "$file"
			return 0
		fi
	done
	return 1
}

# The names and places are those of internal/browser/find.go. Chromium as a snap
# is none: it sees neither a profile in /tmp nor the pipes that it is talked to by.
find_chromium() {
	for name in chromium chromium-browser google-chrome google-chrome-stable headless-shell chrome-headless-shell; do
		old_ifs=$IFS
		IFS=:
		for dir in $PATH:/usr/bin:/usr/local/bin:/opt/google/chrome:/usr/lib/chromium:/headless-shell; do
			file=$dir/$name
			if [ -f "$file" ] && [ -x "$file" ] && ! is_snap "$file"; then
				IFS=$old_ifs
				echo "$file"
				return 0
			fi
		done
		IFS=$old_ifs
	done
	for file in "/Applications/Chromium.app/Contents/MacOS/Chromium" \
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
		if [ -x "$file" ]; then
			echo "$file"
			return 0
		fi
	done
	return 1
}

is_snap() {
	real=$(readlink -f "$1" 2>/dev/null || echo "$1")
	[ "$(basename "$real")" = snap ] || head -c 4096 "$real" | grep -aq '/snap/bin/chromium'
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

install_postgres() {
	# The tests start clusters of their own; the package's would only take
	# memory.
	conf=/etc/postgresql-common/createcluster.d/tenancy-tests.conf
	mkdir -p "$(dirname "$conf")"
	echo 'create_main_cluster = false' >"$conf"
	apt_install postgresql
}

install_pgbouncer() {
	# The tests start PgBouncers of their own, and the package's service would
	# listen on port 6432 for nothing. Without an init system, in a container,
	# Debian's invoke-rc.d starts none. Under systemd a mask keeps it from being
	# started; it is taken away again, and the service is left disabled.
	if [ -d /run/systemd/system ]; then
		systemctl --runtime mask pgbouncer.service || true
		status=0
		apt_install pgbouncer || status=$?
		systemctl --runtime unmask pgbouncer.service || true
		systemctl disable pgbouncer.service || true
		return "$status"
	fi
	apt_install pgbouncer
}

install_chromium() {
	if (. /etc/os-release && [ "$ID" = ubuntu ]); then
		cat >&2 <<END
Ubuntu's package chromium is a snap, which tests can't use. Install Google's
instead:
  curl -fsSLO https://dl.google.com/linux/direct/google-chrome-stable_current_amd64.deb
  apt-get install ./google-chrome-stable_current_amd64.deb
or set TENANCY_TEST_REQUIRE_BROWSER=0: tests that need a browser are skipped then.
END
		return 1
	fi
	apt_install chromium
}

wanted="postgres pgbouncer chromium"
if [ -n "${TENANCY_TEST_DSN:-}" ]; then
	echo "PostgreSQL: the server of TENANCY_TEST_DSN"
	wanted=chromium
fi
if [ "${TENANCY_TEST_REQUIRE_BROWSER:-1}" = 0 ]; then
	echo "chromium: not required (TENANCY_TEST_REQUIRE_BROWSER=0)"
	wanted=${wanted%chromium}
fi

missing=
for program in $wanted; do
	if found=$("find_$program"); then
		echo "$program: $found"
	else
		missing="$missing $program"
	fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	cat >&2 <<END
The tests need PostgreSQL 13 or later, PgBouncer and Chromium or Chrome. Not
found:$missing. Either
  - install them: apt-get install postgresql pgbouncer chromium (Debian; on
    Ubuntu Google's google-chrome-stable, as chromium is a snap there), dnf
    install postgresql-server pgbouncer chromium (Fedora), brew install
    postgresql@17 pgbouncer chromium (macOS), or
  - put the directories of initdb, postgres, pgbouncer and chromium on PATH, or
  - set TENANCY_TEST_DSN to the URL of a server's administrator: tests that
    need a server or a PgBouncer of their own are skipped then; and
    TENANCY_TEST_REQUIRE_BROWSER=0: tests that need a browser are.
END
	exit 1
fi

apt-get update -q
for program in $missing; do
	echo "$program: installing Debian's package"
	"install_$program"
	found=$("find_$program") || {
		echo "$program: installed, but not found" >&2
		exit 1
	}
	echo "$program: $found"
done
