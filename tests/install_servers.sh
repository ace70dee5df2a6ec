#!/usr/bin/env bash
# Installs the server programs that the tests want and this machine lacks, where it may: as root, with apt.
# Anywhere else it says in one line which are missing. Nothing that it installs is started, now or at boot.
# Usage: tests/install_servers.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}

missing=$("$python" -m tests.servers --missing)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "make: server programs missing, their tests will be skipped (as root on Debian they would be installed): $missing"
    exit 0
fi

echo "make: installing server programs: $missing"
log=$(mktemp)
undo=()
trap 'rm -f "$log" "${undo[@]}"' EXIT

# Debian starts what it installs, unless this script says no; the machine may already have one.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    undo+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1
}

# The common package first: its settings then keep PostgreSQL from making a cluster that would start at boot.
without_cluster() {
    install postgresql-common || return
    local settings=/etc/postgresql-common/createcluster.d/threadpool-db-tests.conf
    mkdir -p "$(dirname "$settings")"
    undo+=("$settings")
    echo 'create_main_cluster = false' >"$settings"
}

apt-get update >>"$log" 2>&1 || echo "make: apt-get update failed, trying with the lists that are here"
for package in $missing; do
    if [ "$package" = postgresql ] && ! without_cluster || ! install "$package"; then
        echo "make: $package could not be installed, its tests will be skipped: $(grep '^E:' "$log" | tail -n 1)"
    fi
done
# pgbouncer's package would have it started at boot.
if [[ " $missing " == *" pgbouncer "* ]] && command -v systemctl >/dev/null; then
    systemctl disable pgbouncer >/dev/null 2>&1 || true
fi
