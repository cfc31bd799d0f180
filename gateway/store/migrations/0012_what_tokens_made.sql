-- What an API token made and nobody has used ends with it. CASCADE, not SET NULL: a token whose row is tidied away
-- must not leave behind what looks as if a person had made it.

ALTER TABLE registration_tokens ADD COLUMN api_token_id uuid REFERENCES api_tokens ON DELETE CASCADE;  -- NULL: by a login
ALTER TABLE invitations ADD COLUMN api_token_id uuid REFERENCES api_tokens ON DELETE CASCADE;
