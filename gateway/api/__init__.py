"""The public API and the plain pages."""
