#!/bin/sh
# Makes the two roles of docs/runbook.md, "The database's two roles", and their database. The official image runs it
# once, as the superuser, on an empty cluster. Passwords reach psql by its input, never by an argument.
set -eu
secrets=${TOWLINE_SECRETS:-/srv/towline/secrets}
psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<SQL
CREATE ROLE towline_owner LOGIN PASSWORD '$(cat "$secrets/owner-password")';
CREATE ROLE towline LOGIN PASSWORD '$(cat "$secrets/service-password")';
CREATE DATABASE towline OWNER towline_owner;
REVOKE ALL ON DATABASE towline FROM PUBLIC;
GRANT CONNECT ON DATABASE towline TO towline;
SQL
