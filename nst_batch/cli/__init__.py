"""The command line: options declared once, one module per group of commands, printing.

Imports `run`, `api` and every room; nothing imports it.
"""

from nst_batch.cli.program import app, main

__all__ = ["app", "main"]
