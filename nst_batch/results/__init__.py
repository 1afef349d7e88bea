"""What a run says: queries, rankings, the report and its web files, sheets, plots, export, verification.

The only room that imports DuckDB. May import `store`, `inputs`, `transfer` and the leaves.
"""
