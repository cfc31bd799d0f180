"""The audit log's proof: a hash chain, its signed heads in a second store, the command that compares."""
