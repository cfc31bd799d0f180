"""The listener for tunnel server nodes: mTLS, its own port, never public."""
