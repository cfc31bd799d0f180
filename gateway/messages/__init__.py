"""From the log into the database: what devices said, once, in order, with nothing lost."""
