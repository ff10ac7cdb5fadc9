#!/usr/bin/env bash
# One-shot service `init`: metadata schema, first administrator, connections. Safe to repeat.
set -euo pipefail

airflow db migrate

# Without --password Airflow asks twice on standard input; an argument would show in ps.
admin_password=$(cat /run/secrets/airflow_admin_password)
printf '%s\n%s\n' "$admin_password" "$admin_password" |
  airflow users create --role Admin --username "$AIRFLOW_ADMIN" --email "$AIRFLOW_ADMIN_EMAIL" \
    --firstname Backup --lastname Administrator

# Connections that were edited in Airflow stay as they are.
airflow connections import /run/secrets/airflow_connections.json
