"""People's votes: Bradley and Terry's strengths against their closed form, and agreement with the measures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nst_batch.errors import QueryError
from nst_batch.results import rank
from nst_batch.results.votes import bradley_terry
from nst_batch.store.run_directory import RunDirectory
from tests.results.test_rank import column, run_of
from tests.small_run import distances_of


@pytest.mark.parametrize(("first", "second"), [(3, 1), (10, 0), (7, 7), (250, 90)])
def test_two_configurations_have_a_closed_form(first: int, second: int) -> None:
    strengths, low, high = bradley_terry(np.array([[0.0, first], [second, 0.0]]))
    odds = math.log((first + 0.5) / (second + 0.5))
    deviation = math.sqrt(1 / (first + 0.5) + 1 / (second + 0.5))
    assert strengths[0] - strengths[1] == pytest.approx(odds, abs=1e-5)
    assert strengths.sum() == pytest.approx(0, abs=1e-9)
    assert (high - low)[0] / 2 == pytest.approx(1.959964 * deviation / 2, rel=1e-4)


def test_many_votes_find_the_strengths_they_come_from() -> None:
    truth = np.array([1.0, 0.3, -0.2, -1.1])
    generator = np.random.default_rng(0)
    won = np.zeros((4, 4))
    for _ in range(20_000):
        one, other = generator.choice(4, size=2, replace=False)
        first = generator.random() < 1 / (1 + math.exp(truth[other] - truth[one]))
        won[(one, other) if first else (other, one)] += 1
    strengths, low, high = bradley_terry(won)
    assert strengths == pytest.approx(truth, abs=0.1)
    assert ((low < truth) & (truth < high)).all()


def test_what_no_vote_connects_has_no_strength() -> None:
    won = np.zeros((5, 5))
    won[0, 1], won[1, 2], won[3, 4] = 5, 5, 5
    strengths, _, _ = bradley_terry(won)
    assert strengths[0] > strengths[1] > strengths[2]
    assert np.isnan(strengths[3:]).all()
    assert np.isnan(bradley_terry(np.zeros((3, 3)))[0]).all()


def a_run(tmp_path: Path) -> RunDirectory:
    """Of three configurations the second has the best score, then the first."""
    shares = [(0.6, 0.5), (0.8, 0.6), (0.1, 0.2)]
    return run_of(tmp_path, 3, num_configurations=3, distances=lambda _, at: distances_of(*shares[at]))


def ballot(path: Path, run: RunDirectory, order: list[int], repeats: int = 4, **changes: Any) -> Path:
    """Votes on every pair, all of them for the earlier in `order`."""
    ids, rows = list(run.configurations), run.table("trials").to_pylist()
    pairs = {(row["content_sha256"], row["style_sha256"]) for row in rows}
    votes = [
        {"content_sha256": content, "style_sha256": style, "better": ids[better], "worse": ids[worse],
         "at": "2026-01-01T00:00:00Z"} | changes
        for content, style in sorted(pairs)
        for place, better in enumerate(order)
        for worse in order[place + 1 :]
        for _ in range(repeats)
    ]  # fmt: skip
    path.write_text(json.dumps({"run": "any", "votes": votes}))
    return path


def test_the_votes_order_the_ranking_and_the_measures_are_held_against_them(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    ranking = rank.rank(run, votes=[ballot(tmp_path / "votes.json", run, [1, 0, 2])])
    ids = list(run.configurations)
    assert column(ranking, "configuration") == [ids[1], ids[0], ids[2]]
    assert column(ranking, "votes") == [24, 24, 24]
    assert column(ranking, "strength_low")[0] > column(ranking, "strength_high")[2]
    text = " ".join(rank.notes(ranking))
    assert "Ordered by 36 votes" in text
    assert "own agrees with 100% of 36 votes (90% to 100%)" in text
    assert "Kendall's tau 1.00 between their orders" in text


def test_people_overrule_the_measures(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    files = [ballot(tmp_path / "a.json", run, [2, 0, 1]), ballot(tmp_path / "b.json", run, [2, 0, 1])]
    ranking = rank.rank(run, votes=files)
    assert column(ranking, "configuration")[0] == list(run.configurations)[2]
    text = " ".join(rank.notes(ranking))
    assert "Ordered by 72 votes" in text
    assert "own agrees with 0% of 72 votes" in text
    assert "Kendall's tau -1.00" in text


def test_ties_are_half_a_win_for_both(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    ranking = rank.rank(run, votes=[ballot(tmp_path / "votes.json", run, [1, 0, 2], tie=True)])
    assert column(ranking, "strength") == pytest.approx([0, 0, 0], abs=1e-6)
    assert "own agrees" not in " ".join(rank.notes(ranking))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a file of votes"),
        ("{", "expected a file of votes"),
        ('{"votes": [{"better": "a"}]}', "expected a file of votes"),
        ('{"votes": [{"content_sha256": "", "style_sha256": "", "better": "a", "worse": "a"}]}', "and itself"),
        ('{"votes": [{"content_sha256": "", "style_sha256": "", "better": "a", "worse": "b"}]}', "does not have"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    run = a_run(tmp_path / "run")
    (tmp_path / "votes.json").write_text(text)
    with pytest.raises(QueryError, match=message):
        rank.rank(run, votes=[tmp_path / "votes.json"])
    with pytest.raises(QueryError, match="cannot be read"):
        rank.rank(run, votes=[tmp_path / "none.json"])


def test_votes_on_what_is_not_ranked_do_not_count(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    votes = [ballot(tmp_path / "votes.json", run, [1, 0, 2])]
    text = " ".join(rank.notes(rank.rank(run, where="content_layer != 'block3_conv1'", votes=votes)))
    assert "Ordered by 12 votes" in text


def test_measures_that_see_no_difference_do_not_agree(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 2, num_configurations=2, distances=lambda _, __: distances_of(0.5, 0.5))
    notes = " ".join(rank.notes(rank.rank(run, votes=[ballot(tmp_path / "votes.json", run, [0, 1])])))
    assert "nan" not in notes
    assert "Ordered by 8 votes" in notes
