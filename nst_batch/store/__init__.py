"""The only room that writes tables: files on a disk or in an object store, the lock, rows, the committer.

May import the leaves alone. `committer.Committer` writes a run directory; `run_directory.RunDirectory` reads it,
also while it is written.
"""
