"""What workers printed before they failed."""

from __future__ import annotations

from pathlib import Path

from nst_batch.cluster import pool


def test_a_log_that_is_cut_begins_with_a_whole_line(tmp_path: Path) -> None:
    """The end of a URL does not look like one, and its secret would be kept."""
    half = b"ter2@host/a.png\n"
    rest = b"x" * (pool.MAX_LOG_BYTES - len(half) - 1) + b"\n"
    (tmp_path / "worker.out").write_bytes(b"http://me:hun" + half + rest)
    assert pool._ends([str(tmp_path / "worker.out")]) == rest.decode()
