"""What a person at the command line is told; never a traceback."""

from __future__ import annotations


class TowlineError(Exception):
    """A command that cannot do what was asked; the text says why and what to do."""
