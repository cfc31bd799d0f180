-- Readers of the audit log ask for a time: the record's own text, which sorts as the times do (always UTC, to the
-- millisecond).
ALTER TABLE audit_events ADD COLUMN at text GENERATED ALWAYS AS ((record::jsonb) ->> 'at') STORED;
