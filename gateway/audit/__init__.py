"""The audit log's proof: a hash chain, its signed heads in a second store, and the command that compares them."""
