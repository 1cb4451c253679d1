#!/bin/sh
# Makes sure that tests find PostgreSQL and PgBouncer: nothing to do if their
# programs are there, or if TENANCY_TEST_DSN names a server; installs them on
# Debian and Ubuntu when run as root; otherwise says what to install.
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

if [ -n "${TENANCY_TEST_DSN:-}" ]; then
	echo "PostgreSQL: the server of TENANCY_TEST_DSN"
	exit 0
fi

missing=
for program in postgres pgbouncer; do
	if found=$("find_$program"); then
		echo "$program: $found"
	else
		missing="$missing $program"
	fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	cat >&2 <<END
The tests need PostgreSQL 13 or later and PgBouncer. Not found:$missing. Either
  - install them: apt-get install postgresql pgbouncer (Debian, Ubuntu), dnf
    install postgresql-server pgbouncer (Fedora), brew install postgresql@17
    pgbouncer (macOS), or
  - put the directories of initdb, postgres and pgbouncer on PATH, or
  - set TENANCY_TEST_DSN to the URL of a server's administrator: tests that
    need a server or a PgBouncer of their own are skipped then.
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
