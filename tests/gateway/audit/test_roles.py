"""What the service's own credentials can do to the database, on both of the PostgreSQLs that we run on."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from gateway.errors import MigrationError, SchemaBehindError
from gateway.migrate_schema import migrate_schema
from gateway.store import migrate, roles, schema
from gateway.store.database import Database
from gateway.store.transaction import AuditEvent
from runtime.clock import FakeClock
from testbed.debian_postgres import debian_postgres
from testbed.postgres_server import PostgresServer
from testbed.waiting import eventually
from tests.gateway.world import World, settings_for
from towline.embedded.postgres import SUPERUSER

REFUSED = (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError)


@dataclass(frozen=True)
class Server:
    """One PostgreSQL, as its superuser."""

    url: str
    """Of the superuser, without its database."""

    def of(self, role: str, password: str, database: str) -> str:
        head, _, tail = self.url.partition("@")
        host, _, options = tail.partition("/")
        return f"{head.partition('//')[0]}//{role}:{password}@{host}/{database}{options}"

    async def do(self, database: str, *statements: str) -> None:
        connection = await asyncpg.connect(self.superuser(database))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def superuser(self, database: str) -> str:
        head, _, tail = self.url.partition("@")
        host, _, options = tail.partition("/")
        return f"{head}@{host}/{database}{options}"


@dataclass(frozen=True)
class Site:
    """One installation's database and its two roles."""

    server: Server
    database: str
    service: str
    service_url: str
    owner: str
    owner_url: str


@pytest.fixture(scope="module", params=["embedded 18", "Debian's 15"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "embedded 18":
        embedded: PostgresServer = request.getfixturevalue("postgres")
        yield Server(embedded.url("", SUPERUSER))
        return
    with debian_postgres() as debian:
        yield Server(debian.url("", "postgres"))


@pytest.fixture
async def site(server: Server) -> AsyncIterator[Site]:
    """As the runbook says to make it."""
    name, password = f"site_{secrets.token_hex(4)}", secrets.token_hex(16)
    owner, service = f"{name}_owner", f"{name}_service"
    await server.do(
        "postgres",
        f"CREATE ROLE {owner} LOGIN PASSWORD '{password}'",
        f"CREATE ROLE {service} LOGIN PASSWORD '{password}'",
        f"CREATE DATABASE {name} OWNER {owner}",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {name} TO {service}",
    )
    made = Site(
        server,
        name,
        service,
        server.of(service, password, name),
        owner,
        server.of(owner, password, name),
    )
    yield made
    await server.do(
        "postgres", f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {owner}", f"DROP ROLE {service}"
    )


@pytest.fixture
async def ready(site: Site) -> Site:
    await schema.put(site.service_url, site.owner_url, migrate.load())
    database = Database(site.service_url, pool_max=1, wall=lambda: 1_800_000_000.0)
    await database.open()
    database.prepared = True
    async with database.transaction() as tx:
        tx.audit(AuditEvent("test.begun", "someone"))
    await database.close()
    return site


ATTEMPTS = (
    "UPDATE audit_events SET record = '{}'",
    "UPDATE audit_events SET seq = seq + 1",
    "DELETE FROM audit_events",
    "TRUNCATE audit_events",
    "TRUNCATE audit_events CASCADE",
    "ALTER TABLE audit_events DISABLE TRIGGER ALL",
    "ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only",
    "ALTER TABLE audit_events ADD COLUMN x int",
    "ALTER TABLE audit_events OWNER TO CURRENT_USER",
    "ALTER TABLE audit_events RENAME TO gone",
    "DROP TABLE audit_events",
    "DROP TRIGGER audit_events_append_only ON audit_events",
    "DROP FUNCTION refuse_audit_change() CASCADE",
    "CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NULL; END'",
    "CREATE RULE quiet AS ON INSERT TO audit_events DO INSTEAD NOTHING",
    "CREATE TRIGGER quiet BEFORE INSERT ON audit_events EXECUTE FUNCTION refuse_audit_change()",
    "SET session_replication_role = replica",
    "SET ROLE {owner}",
    "SET SESSION AUTHORIZATION {owner}",
    "GRANT {owner} TO CURRENT_USER",
    "DELETE FROM audit_head",
    "INSERT INTO audit_head (only_row, seq, hash) VALUES (false, 0, '')",
    "INSERT INTO schema_migrations (number, name, checksum) VALUES (99, 'x', 'x')",
    "DELETE FROM schema_migrations",
    "CREATE TABLE mine (x int)",
    "CREATE TEMPORARY TABLE mine (x int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE DATABASE mine",
    "CREATE ROLE mine",
    "ALTER ROLE {owner} PASSWORD 'x'",
    "ALTER DATABASE {database} SET session_replication_role = replica",
    "DROP DATABASE {database}",
    "COPY users TO PROGRAM 'cat'",
    "COPY users FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT * FROM pg_authid",
)


async def test_the_services_own_credentials_change_no_audit_event_and_nothing_that_is_not_its(
    ready: Site,
) -> None:
    connection = await asyncpg.connect(ready.service_url)
    # Postgres only warns of this, and gives nothing.
    await connection.execute("GRANT ALL ON audit_events TO CURRENT_USER")
    done = []
    for attempt in ATTEMPTS:
        statement = attempt.replace("{owner}", ready.owner).replace("{database}", ready.database)
        try:
            await connection.execute(statement)
        except (*REFUSED, asyncpg.ObjectInUseError) as error:
            if isinstance(error, asyncpg.ObjectInUseError):
                done.append(f"{statement}: only refused because somebody is connected")
            continue
        except asyncpg.PostgresError as error:
            done.append(f"{statement}: {error!r}")
            continue
        done.append(statement)
    assert done == []
    # What it is there for, it may.
    assert await connection.fetchval("SELECT count(*) FROM audit_events") == 1
    await connection.execute("UPDATE revocation_head SET n = n")
    await connection.close()


async def test_it_owns_nothing_and_has_exactly_the_rights_that_are_written_down(ready: Site) -> None:
    connection = await asyncpg.connect(ready.service_url)
    rows = await connection.fetch(
        "SELECT c.relname, c.relkind, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS rights"
        " FROM pg_class c LEFT JOIN LATERAL aclexplode(c.relacl) a ON pg_get_userbyid(a.grantee) = $1"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'p') GROUP BY 1, 2",
        ready.service,
    )
    rights = {row["relname"]: row["rights"] for row in rows}
    everything = "DELETE, INSERT, SELECT, UPDATE"
    assert rights["audit_events"] == "INSERT, SELECT"
    assert rights["audit_head"] == "SELECT, UPDATE"
    assert rights["schema_migrations"] == "SELECT"
    assert {name for name, given in rights.items() if given != everything} == set(roles.LESS)
    assert not await connection.fetchval(
        "SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) = $1", ready.service
    )
    await connection.close()


async def test_giving_the_rights_again_takes_away_what_somebody_added(ready: Site) -> None:
    await ready.server.do(
        ready.database,
        f"GRANT ALL ON audit_events TO {ready.service}",
        f"GRANT CREATE ON SCHEMA public TO {ready.service}",
        "GRANT DELETE ON audit_events TO PUBLIC",
    )
    results = await asyncio.gather(
        *(schema.put(ready.service_url, ready.owner_url, migrate.load()) for _ in range(3))
    )
    assert results == [0, 0, 0]
    connection = await asyncpg.connect(ready.service_url)
    for statement in ("DELETE FROM audit_events", "CREATE TABLE mine (x int)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("ALTER ROLE {service} SUPERUSER", "superuser"),
        ("ALTER ROLE {service} CREATEROLE", "make roles"),
        ("GRANT {owner} TO {service}", "is a member of"),
        ("GRANT pg_write_all_data TO {service}", "pg_write_all_data"),
        ("ALTER TABLE audit_events OWNER TO {service}", "owns audit_events"),
    ],
)
async def test_two_roles_that_protect_nothing_are_refused(ready: Site, statement: str, said: str) -> None:
    await ready.server.do(ready.database, statement.format(owner=ready.owner, service=ready.service))
    with pytest.raises(MigrationError, match=said):
        await schema.put(ready.service_url, ready.owner_url, migrate.load())
    await ready.server.do(ready.database, f"ALTER TABLE audit_events OWNER TO {ready.owner}")


async def test_an_installation_of_one_role_gets_an_owner(site: Site) -> None:
    """As the runbook says: REASSIGN OWNED once; the rows and the chain stay."""
    await site.server.do(
        "postgres",
        f"ALTER DATABASE {site.database} OWNER TO {site.service}",
        f"GRANT CONNECT ON DATABASE {site.database} TO PUBLIC",  # as a new database has it
    )
    assert await schema.put(site.service_url, None, migrate.load()) == len(migrate.load())
    with pytest.raises(MigrationError, match="REASSIGN OWNED"):
        await schema.put(site.service_url, site.owner_url, migrate.load())
    await site.server.do(site.database, f"REASSIGN OWNED BY {site.service} TO {site.owner}")
    assert await schema.put(site.service_url, site.owner_url, migrate.load()) == 0
    connection = await asyncpg.connect(site.service_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
    await connection.close()


async def test_a_gateway_without_the_owners_password_waits_for_the_migrations(
    site: Site,
    tmp_path: Path,
    keys_dir: Path,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    some = migrate.load()[:-1]
    await schema.put(site.service_url, site.owner_url, some)
    with pytest.raises(SchemaBehindError, match="towline gateway migrate"):
        await schema.put(site.service_url, None, migrate.load())
    world = World(settings_for(tmp_path, site.service_url, keys_dir), clock, tmp_path)
    await world.start()
    await asyncio.to_thread(
        eventually,
        "it waits",
        lambda: any(record.getMessage() == "waiting for the migrations" for record in caplog.records),
    )
    config = tmp_path / "gateway.toml"
    config.write_text(
        'public_url = "http://localhost:8080"\nkeys_dir = "keys"\ntunnel_scheme = "http"\n'
        f'agent_tunnel_urls = ["wss://localhost:8082/tunnel"]\ndatabase_url = "{site.service_url}"\n'
    )
    (tmp_path / "owner-url").write_text(site.owner_url)
    argv = ["--config", str(config), "--owner-url-file", str(tmp_path / "owner-url")]
    assert await asyncio.to_thread(migrate_schema, argv) == 0
    assert "1 migrations were applied" in capsys.readouterr().out
    async with asyncio.timeout(10):
        await world.prepared()
    await world.person()
    await world.close()


async def test_a_whole_gateway_runs_with_the_services_rights_alone(
    ready: Site, tmp_path: Path, keys_dir: Path, clock: FakeClock
) -> None:
    """On 18 every test of the gateway does so too."""
    world = World(settings_for(tmp_path, ready.service_url, keys_dir), clock, tmp_path)
    await (await world.start()).prepared()
    owner = await world.person()
    device = await world.enrol(owner)
    await world.node().connect(device)
    answer = await owner.post(f"/v1/devices/{device.id}/sessions", json={})
    assert answer.status_code == 201
    assert (await owner.delete(f"/v1/sessions/{answer.json()['id']}")).status_code == 204
    await world.close()
