#!/usr/bin/env bash
# Reads dashboards/alerts.yml and deploy/compose/prometheus.yml with Prometheus' own promtool, and runs the rules' tests.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

command -v promtool >/dev/null || {
    echo "check-dashboards: promtool not found; run: scripts/setup.sh promtool" >&2
    exit 1
}
promtool check rules dashboards/alerts.yml
promtool test rules dashboards/alerts-test.yml
promtool check config --syntax-only deploy/compose/prometheus.yml
