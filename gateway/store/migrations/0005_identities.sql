-- People who log in by a provider of theirs (OpenID Connect), and browser logins that one can list and end.

-- The key is what the provider promises never to give to another person (OIDC Core 5.7): its issuer and the
-- subject. An e-mail address is shown, never looked up: whoever can set theirs would take an account over.
CREATE TABLE identities (
    issuer         text NOT NULL,
    subject        text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id        uuid NOT NULL REFERENCES users,
    provider       text NOT NULL,             -- the settings' name of the provider at the last login
    email          text,
    email_verified boolean NOT NULL,          -- the provider said so of this address
    created_at     timestamptz NOT NULL,
    used_at        timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_user ON identities (user_id);

ALTER TABLE logins DROP CONSTRAINT logins_kind_check;
ALTER TABLE logins ADD CONSTRAINT logins_kind_check CHECK (kind IN ('password', 'welcome', 'provider', 'app'));
ALTER TABLE logins ADD COLUMN provider text;  -- NULL: not by a provider
ALTER TABLE logins ADD COLUMN address text NOT NULL DEFAULT '';
ALTER TABLE logins ADD COLUMN user_agent text NOT NULL DEFAULT '';  -- shortened: "Firefox on Linux"
ALTER TABLE logins ADD COLUMN seen_at timestamptz;  -- to the minute; the idle life counts from here
UPDATE logins SET seen_at = created_at;
ALTER TABLE logins ALTER COLUMN seen_at SET NOT NULL;
CREATE INDEX logins_user ON logins (user_id) WHERE ended_at IS NULL;
