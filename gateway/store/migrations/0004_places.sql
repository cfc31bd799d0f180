-- Places: an org has sites, a device is in one site, people have a role in a whole org or in one site of it.
-- Until here a device belonged to a person: each person gets an org with one site, and their devices move there.

-- Ordered by what they may: where somebody has two roles at a site, the greatest counts.
CREATE TYPE site_role AS ENUM ('support', 'member', 'admin', 'owner');

CREATE TABLE orgs (
    id         text PRIMARY KEY CHECK (id ~ '^o_[a-z2-7]{16}$'),
    name       text NOT NULL,
    created_at timestamptz NOT NULL,
    version    bigint NOT NULL DEFAULT 1,     -- counts changes: the ETag
    deleted_at timestamptz
);

CREATE TABLE sites (
    id         text PRIMARY KEY CHECK (id ~ '^s_[a-z2-7]{16}$'),
    org_id     text NOT NULL REFERENCES orgs,
    name       text NOT NULL,
    created_at timestamptz NOT NULL,
    version    bigint NOT NULL DEFAULT 1,
    deleted_at timestamptz                    -- its devices are revoked, the audit log still names it
);
CREATE INDEX sites_org ON sites (org_id, id);

CREATE TABLE memberships (
    id         uuid PRIMARY KEY,
    org_id     text NOT NULL REFERENCES orgs ON DELETE CASCADE,
    site_id    text REFERENCES sites ON DELETE CASCADE,  -- NULL: every site of the org, also later ones
    user_id    uuid NOT NULL REFERENCES users,
    role       site_role NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX memberships_once ON memberships (user_id, org_id, coalesce(site_id, ''));
CREATE INDEX memberships_org ON memberships (org_id);

-- Who is what where: the one place that knows how the two kinds of membership add up.
CREATE VIEW site_roles AS
    SELECT s.id AS site_id, m.user_id, max(m.role) AS role
    FROM memberships m JOIN sites s ON s.org_id = m.org_id AND (m.site_id IS NULL OR m.site_id = s.id)
    WHERE s.deleted_at IS NULL
    GROUP BY s.id, m.user_id;

-- An invitation is a secret that makes whoever accepts it a member, once, while its author could still do so.
CREATE TABLE invitations (
    id           uuid PRIMARY KEY,
    token_sha256 bytea NOT NULL UNIQUE,
    org_id       text NOT NULL REFERENCES orgs ON DELETE CASCADE,
    site_id      text REFERENCES sites ON DELETE CASCADE,  -- NULL: to the whole org
    role         site_role NOT NULL,
    invited_by   uuid NOT NULL REFERENCES users,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz,
    used_by      uuid REFERENCES users
);
CREATE INDEX invitations_org ON invitations (org_id, created_at);

-- What a person is for the whole installation. It opens no device: 'support' may ask owners for access,
-- 'admin' keeps users and keys.
ALTER TABLE users ADD COLUMN role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'support', 'admin'));

CREATE FUNCTION pg_temp.new_id(prefix text) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT prefix || string_agg(substr('abcdefghijklmnopqrstuvwxyz234567', (get_byte(b, i) & 31) + 1, 1), '')
    FROM (SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS b) bytes,
         unnest(ARRAY[0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]) AS i
$$;

CREATE TEMPORARY TABLE homes ON COMMIT DROP AS
    SELECT u.id AS user_id, u.username, u.created_at, pg_temp.new_id('o_') AS org_id, pg_temp.new_id('s_') AS site_id
    FROM users u;
INSERT INTO orgs (id, name, created_at) SELECT org_id, username, created_at FROM homes;
INSERT INTO sites (id, org_id, name, created_at) SELECT site_id, org_id, 'Home', created_at FROM homes;
INSERT INTO memberships (id, org_id, user_id, role, created_at)
    SELECT gen_random_uuid(), org_id, user_id, 'owner', created_at FROM homes;

ALTER TABLE devices ADD COLUMN site_id text REFERENCES sites;
UPDATE devices d SET site_id = h.site_id FROM homes h WHERE h.user_id = d.owner_id;
ALTER TABLE devices ALTER COLUMN site_id SET NOT NULL;
DROP INDEX devices_owner;
ALTER TABLE devices DROP COLUMN owner_id;
-- Its owner lets go of it: until then a device that proves itself may be claimed into another site.
ALTER TABLE devices ADD COLUMN released_until timestamptz;
ALTER TABLE devices ADD COLUMN tags text[] NOT NULL DEFAULT '{}';
ALTER TABLE devices ADD COLUMN version bigint NOT NULL DEFAULT 1;
CREATE INDEX devices_site ON devices (site_id, id);
CREATE INDEX devices_tags ON devices USING gin (tags);

ALTER TABLE registration_tokens ADD COLUMN site_id text REFERENCES sites ON DELETE CASCADE;
UPDATE registration_tokens t SET site_id = h.site_id FROM homes h WHERE h.user_id = t.user_id;
ALTER TABLE registration_tokens ALTER COLUMN site_id SET NOT NULL;

-- Which login opened a session: logging out ends what it opened. NULL: from before, or by an API token.
ALTER TABLE sessions ADD COLUMN login_id uuid REFERENCES logins ON DELETE SET NULL;
CREATE INDEX sessions_login ON sessions (login_id) WHERE ended_at IS NULL;

-- Things of a site are told to those who run it; `owner` stays for what concerns a person's own account.
-- Rows from before have no site: they say the owner.
ALTER TABLE audit_events ADD COLUMN site text GENERATED ALWAYS AS ((record::jsonb) ->> 'site') STORED;
CREATE INDEX audit_events_site ON audit_events (site, seq);
