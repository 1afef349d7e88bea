"""rank --over: layers compared apart from strength, on curves of which the winner is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nst_batch.errors import QueryError
from nst_batch.results import rank
from nst_batch.results.tradeoff import kept_at
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import RankBy
from tests import simulated, small_run
from tests.results.test_rank import column
from tests.small_run import distances_of

LAYERS = ("block1_conv1", "block4_conv1", "block5_conv1")
ALPHAS = (0.1, 1.0, 10.0, 100.0)
LEVEL = {LAYERS[0]: 0.9, LAYERS[1]: 1.1, LAYERS[2]: 0.5}
"""Kept + taken, wherever on the curve: higher is better at every strength."""


def a_run(path: Path, num_pairs: int = 5, failing: tuple[int, ...] = ()) -> RunDirectory:
    """Straight trade-offs; the layers are at other places of their curves, as layers are at equal alpha."""
    points = [(layer, alpha) for layer in LAYERS for alpha in ALPHAS]
    chosen = small_run.configurations(*({"content_layers": (layer,), "alpha": alpha} for layer, alpha in points))
    shift = {LAYERS[0]: 0.25, LAYERS[1]: 0.0, LAYERS[2]: 0.1}

    def distances(pair: int, position: int) -> tuple[float, float]:
        layer, alpha = points[position]
        kept: float = min(0.9, 0.1 + 0.2 * ALPHAS.index(alpha) + shift[layer]) - 0.01 * pair
        return distances_of(kept, max(0.0, LEVEL[layer] - kept))

    contents = [simulated.picture(f"content-{number}") for number in range(num_pairs)]
    trials = list(small_run.plan(contents, [[simulated.picture("style")]], chosen))
    return small_run.write(path, trials, distances=distances, failing=failing)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return a_run(tmp_path_factory.mktemp("over") / "run")


@pytest.mark.parametrize("by", ["score", "kept_at_0.3", "kept_at_0.5", "area"])
def test_the_known_winner_comes_first(run: RunDirectory, by: RankBy) -> None:
    ranking = rank.rank(run, by, over="alpha")
    assert [each[0] for each in column(ranking, "content_layers")] == [LAYERS[1], LAYERS[0], LAYERS[2]]
    assert column(ranking, "mean_rank") == [1, 2, 3]
    assert column(ranking, "won") == [1, 0, 0]
    assert column(ranking, "low")[0] == 1
    assert column(ranking, "points") == [4, 4, 4]
    assert "alpha" not in ranking.schema.names


def test_what_the_curves_are_compared_by(run: RunDirectory) -> None:
    best = rank.rank(run, over="alpha").to_pylist()[0]
    assert best["best_alpha"] == 10.0
    assert best["kept_at_0.5"] == pytest.approx(0.6, abs=0.01)
    assert best["kept_at_0.3"] == pytest.approx(0.68, abs=0.01)  # the curve ends before, at 0.7, 0.69 …
    assert best["transfer_score"] == pytest.approx(np.mean([(0.5 - d) * (0.6 + d) for d in 0.01 * np.arange(5)]))
    assert run.configurations[best["configuration"]].alpha == 10.0


def test_style_that_is_never_taken_is_last(run: RunDirectory) -> None:
    ranking = rank.rank(run, "kept_at_0.7", over="alpha")
    kept = dict(
        zip([each[0] for each in column(ranking, "content_layers")], column(ranking, "kept_at_0.7"), strict=True)
    )
    assert kept[LAYERS[1]] > 0.3
    assert kept[LAYERS[2]] == kept[LAYERS[0]] == 0


def test_any_axis_will_do_that_has_values(run: RunDirectory) -> None:
    ranking = rank.rank(run, over="content_layers")
    assert ranking.num_rows == len(ALPHAS)
    assert column(ranking, "points") == [3] * 4
    for axis, message in (("steps", "one value of it only"), ("nonsense", "one of size")):
        with pytest.raises(QueryError, match=message):
            rank.rank(run, over=axis)
    with pytest.raises(QueryError, match="expected to rank curves by score"):
        rank.rank(run, "content", over="alpha")
    with pytest.raises(QueryError, match="the others need --over"):
        rank.rank(run, "area")


def test_a_failed_point_leaves_the_rest_of_its_curve(tmp_path: Path) -> None:
    ranking = rank.rank(a_run(tmp_path, 1, failing=(4, 8, 9, 10, 11)), over="alpha")
    assert [each[0] for each in column(ranking, "content_layers")] == [LAYERS[1], LAYERS[0], LAYERS[2]]
    assert column(ranking, "failed") == [1, 0, 4]


@example([(1.0, 0.7)])
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_more_style_never_keeps_more_content(points: list[tuple[float, float]]) -> None:
    kept, taken = np.array(points).T
    found = kept_at(kept, taken)
    assert (np.diff(found) <= 1e-12).all()
    assert found[0] == pytest.approx(kept.max())
    for keep, take in points:
        assert found[max(0, int(np.floor(take * 100 - 1e-9)))] >= keep - 1e-9


def test_between_two_points_the_curve_is_straight() -> None:
    found = kept_at(np.array([0.8, 0.4]), np.array([0.2, 0.6]))
    assert found[[0, 20, 30, 50, 60, 61]] == pytest.approx([0.8, 0.8, 0.7, 0.5, 0.4, 0])
    assert found.tolist() == kept_at(np.array([0.4, 0.8]), np.array([0.6, 0.2])).tolist()
