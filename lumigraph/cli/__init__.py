"""The command `lumigraph`: one file a command, argument handling only."""

from .entry import main

__all__ = ["main"]
