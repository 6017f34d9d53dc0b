# Runs PostgreSQL as a user without a name of its own, from Debian's package or the official image.
set -eu
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
if [ ! -d "$PGDATA" ]; then
  initdb --pgdata="$PGDATA" --username=postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --pgdata="$PGDATA" -o "-c listen_addresses= -k /tmp" -w start
  psql -h /tmp -U postgres -v ON_ERROR_STOP=1 postgres <<'SQL'
CREATE ROLE owner LOGIN PASSWORD 'owners-own';
CREATE ROLE agent LOGIN PASSWORD 'agents-own';
CREATE DATABASE workflow OWNER agent;
CREATE DATABASE ledger OWNER owner;
\connect ledger
ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO agent;
ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT USAGE ON SEQUENCES TO agent;
SQL
  pg_ctl --pgdata="$PGDATA" -w stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c max_connections=200 -k /tmp
