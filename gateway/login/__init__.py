"""Logging in by a provider: OpenID Connect's authorization code flow, as a client."""
