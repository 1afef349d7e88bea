"""The only room that writes tables: a run directory on a disk or in an object store, with one writer.

The way of a result: `committer` (what has ended, and when it is published) → `rows` (records as rows, by the
schemas in `tables`) → `files` (staged, then moved to its place, while the `lock` is held). `run_directory` reads,
also while a run writes; `snapshot` is where published and staged rows meet. May import the leaves alone.
"""
