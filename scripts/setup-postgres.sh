#!/bin/sh
# Makes sure that tests find a PostgreSQL: nothing to do if TENANCY_TEST_DSN
# names a server or the binaries are there; installs them on Debian and Ubuntu
# when run as root; otherwise says what to install.
set -eu

# The places are those of internal/pgtest/binaries.go.
find_binaries() {
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

if [ -n "${TENANCY_TEST_DSN:-}" ]; then
	echo "PostgreSQL: the server of TENANCY_TEST_DSN"
	exit 0
fi
if dir=$(find_binaries); then
	echo "PostgreSQL: $dir"
	exit 0
fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	cat >&2 <<'EOF'
The tests need PostgreSQL 13 or later, and its initdb and postgres were not found. Either
  - install it: apt-get install postgresql (Debian, Ubuntu), dnf install
    postgresql-server (Fedora), brew install postgresql@17 (macOS), or
  - put the directory of initdb and postgres on PATH, or
  - set TENANCY_TEST_DSN to the URL of a server's administrator.
EOF
	exit 1
fi

echo "PostgreSQL: installing Debian's package"
# The tests start clusters of their own; the package's would only take memory.
conf=/etc/postgresql-common/createcluster.d/tenancy-tests.conf
mkdir -p "$(dirname "$conf")"
echo 'create_main_cluster = false' >"$conf"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends postgresql
dir=$(find_binaries) || {
	echo "PostgreSQL: installed, but its initdb and postgres were not found" >&2
	exit 1
}
echo "PostgreSQL: $dir"
