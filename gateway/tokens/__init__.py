"""Minting and strictly verifying the gateway's own tokens."""
