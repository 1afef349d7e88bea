from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from nst_batch.errors import QueryError
from nst_batch.results import rank, statistics
from nst_batch.results.statistics import bootstrap_interval, pareto_front, shares_won
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, small_run
from tests.small_run import distances_of

DEPTHS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1")


def run_of(path: Path, num_pairs: int, *, num_configurations: int = 4, **options: Any) -> RunDirectory:
    """A run whose pictures have names only."""
    contents = [simulated.picture(f"content-{number}") for number in range(num_pairs)]
    chosen = small_run.configurations(*({"content_layers": (layer,)} for layer in DEPTHS[:num_configurations]))
    trials = list(small_run.plan(contents, [[simulated.picture("style")]], chosen))
    return small_run.write(path, trials, **options)


def column(table: pa.Table, name: str) -> list[Any]:
    found: list[Any] = table[name].to_pylist()
    return found


# The table


def test_the_known_best_comes_first(tmp_path: Path) -> None:
    def distances(pair: int, position: int) -> tuple[float, float]:
        kept, taken = [(0.3, 0.5), (0.8, 0.6), (0.6, 0.3), (0.5, 0.5)][position]
        return distances_of(kept, taken * 0.9**pair)

    ranking = rank.rank(run_of(tmp_path, 6, distances=distances))
    assert [each[0] for each in column(ranking, "content_layers")] == [DEPTHS[i] for i in (1, 3, 2, 0)]
    assert column(ranking, "rank") == [1, 2, 3, 4]
    assert column(ranking, "mean_rank") == [1, 2, 3, 4]
    assert column(ranking, "won") == [1, 0, 0, 0]
    assert column(ranking, "pareto") == [True, False, False, False]
    assert column(ranking, "low")[0] == 1
    assert 1 < column(ranking, "high")[0] < 2
    assert column(ranking, "pairs") == [6] * 4
    assert column(ranking, "content_kept") == pytest.approx([0.8, 0.5, 0.6, 0.3])
    scores, low, high = (column(ranking, name) for name in ("transfer_score", "score_low", "score_high"))
    assert scores[0] == pytest.approx(0.8 * 0.6 * np.mean(0.9 ** np.arange(6)))
    assert all(low[i] < scores[i] < high[i] for i in range(4))


def test_a_trade_off_has_a_best_and_does_not_tie(tmp_path: Path) -> None:
    """What content loses, style wins: ranks by content and by style cancel, the score has its best in between."""

    def distances(_: int, position: int) -> tuple[float, float]:
        return distances_of([0.95, 0.6, 0.3, 0.1][position], [0.02, 0.5, 0.7, 0.9][position])

    ranking = rank.rank(run_of(tmp_path, 1, distances=distances))
    assert [each[0] for each in column(ranking, "content_layers")] == [DEPTHS[i] for i in (1, 2, 3, 0)]
    assert column(ranking, "rank") == [1, 2, 3, 4]


def test_known_ties_share_rank_and_victory(tmp_path: Path) -> None:
    def distances(_: int, position: int) -> tuple[float, float]:
        return [0.1, 0.1, 0.2, 0.2][position], 0.5

    ranking = rank.rank(run_of(tmp_path, 5, distances=distances), "content")
    assert column(ranking, "mean_rank") == [1.5, 1.5, 3.5, 3.5]
    assert column(ranking, "rank") == [1, 1, 3, 3]
    assert column(ranking, "won") == [0.5, 0.5, 0, 0]
    assert column(ranking, "pareto") == [True, True, False, False]


def test_a_hard_picture_does_not_outvote_the_others(tmp_path: Path) -> None:
    def distances(pair: int, position: int) -> tuple[float, float]:
        return ([1000.0, 0.9] if pair == 0 else [0.1, 0.2])[position], 0.5

    ranking = rank.rank(run_of(tmp_path, 9, num_configurations=2, distances=distances), "content")
    assert column(ranking, "content_layers") == [[DEPTHS[0]], [DEPTHS[1]]]
    assert column(ranking, "won") == [8 / 9, 1 / 9]
    assert column(ranking, "content_distance")[0] > column(ranking, "content_distance")[1]


def test_by_chooses_what_the_order_follows(tmp_path: Path) -> None:
    run = run_of(tmp_path, 5)
    best = {by: column(rank.rank(run, by), "content_layers")[0] for by in ("content", "style")}
    assert best == {"content": [DEPTHS[0]], "style": [DEPTHS[3]]}
    with pytest.raises(QueryError, match="training losses of different layers cannot be compared"):
        rank.rank(run, "final_total_loss")  # type: ignore[arg-type]


def test_only_what_differs_is_a_label(tmp_path: Path) -> None:
    ranking = rank.rank(run_of(tmp_path, 2))
    assert ranking.schema.names[:3] == ["rank", "content_layers", "weights"]
    assert "alpha" not in ranking.schema.names


def test_few_pairs_have_no_interval(tmp_path: Path) -> None:
    ranking = rank.rank(run_of(tmp_path, statistics.MIN_PAIRS - 1))
    assert column(ranking, "low") == column(ranking, "high") == [None] * 4
    assert any("too few for an interval" in note for note in rank.notes(ranking))


def test_what_a_reader_must_know_is_noted(tmp_path: Path) -> None:
    notes = " ".join(rank.notes(rank.rank(run_of(tmp_path, 6, failing=[0, 1]))))
    assert "RANDOM weights" in notes
    assert "2 failed trials count as last" in notes
    assert "share pictures" not in notes


def test_pairs_that_share_pictures_are_noted(tmp_path: Path) -> None:
    contents = [simulated.picture(f"content-{number}") for number in range(3)]
    styles = [[simulated.picture("one")], [simulated.picture("two")]]
    trials = list(small_run.plan(contents, styles, small_run.configurations({"alpha": 1.0}, {"alpha": 2.0})))
    notes = " ".join(rank.notes(rank.rank(small_run.write(tmp_path, trials))))
    assert "6 pairs share pictures (3 contents, 2 styles)" in notes


def test_masks_make_pairs_of_their_own(tmp_path: Path) -> None:
    [plain] = small_run.inputs(tmp_path, ["c.png"])
    contents = [plain, *(small_run.masked(plain, tmp_path / f"{color}.png", color) for color in ("white", "red"))]
    chosen = small_run.configurations({"alpha": 1.0}, {"alpha": 2.0})
    trials = list(small_run.plan(contents, [[simulated.picture("style")]], chosen))
    ranking = rank.rank(small_run.write(tmp_path / "run", trials, failing=[2]))
    assert column(ranking, "pairs") == [3, 3]
    assert sum(column(ranking, "failed")) == 1


def test_a_picture_that_has_moved_makes_no_other_pair(tmp_path: Path) -> None:
    """What has ended keeps the name that the picture had then."""
    contents = [simulated.picture(f"content-{number}") for number in range(5)]
    chosen = small_run.configurations({"alpha": 1.0}, {"alpha": 2.0})
    trials = list(small_run.plan(contents, [[simulated.picture("style")]], chosen))
    for at in range(1, len(trials), 2):
        content = trials[at].content
        assert content
        trials[at] = replace(trials[at], content=replace(content, uri=f"moved/{at}.jpg"))
    assert column(rank.rank(small_run.write(tmp_path, trials)), "pairs") == [5, 5]


def test_a_failure_is_last_in_its_pair(tmp_path: Path) -> None:
    ranking = rank.rank(run_of(tmp_path, 1, failing=[0]), "content")
    assert column(ranking, "content_layers")[-1] == [DEPTHS[0]]
    assert column(ranking, "mean_rank") == [1, 2, 3, 4]
    assert column(ranking, "content_distance")[-1] is None
    assert column(ranking, "failed") == [0, 0, 0, 1]


def test_a_pair_that_failed_everywhere_says_nothing(tmp_path: Path) -> None:
    ranking = rank.rank(run_of(tmp_path, 3, failing=[0, 1, 2, 3]))
    assert column(ranking, "pairs") == [2] * 4
    assert column(ranking, "failed") == [0] * 4


@pytest.mark.parametrize(
    ("pending", "pairs", "configurations"),
    [
        (range(10, 24), 2, 4),  # two pairs whole, the third begun
        (range(2, 24), 1, 2),  # the first pair only begun
        ((3, 7, 11, 15, 19, 23), 6, 3),  # one configuration missing everywhere
    ],
)
def test_a_run_in_progress_is_ranked_on_what_is_comparable(
    tmp_path: Path, pending: Any, pairs: int, configurations: int
) -> None:
    ranking = rank.rank(run_of(tmp_path, 6, pending=list(pending)))
    assert set(column(ranking, "pairs")) == {pairs}
    assert ranking.num_rows == configurations


def test_what_was_left_out_is_noted(tmp_path: Path) -> None:
    notes = rank.notes(rank.rank(run_of(tmp_path, 6, pending=range(10, 24))))
    assert "Compares 4 of 4 configurations on 2 of 3 pairs" in notes[0]


def test_where_chooses_the_trials(tmp_path: Path) -> None:
    run = run_of(tmp_path, 5)
    ranking = rank.rank(run, where="content_layer IN ('block1_conv1', 'block3_conv1') -- two")
    assert ranking.num_rows == 2
    assert "content_layers" in ranking.schema.names
    with pytest.raises(QueryError, match="content_layer"):
        rank.rank(run, where="layer = 'block1_conv1'")
    with pytest.raises(QueryError, match="no trial to rank"):
        rank.rank(run, where="false")


def test_nothing_to_rank_yet(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no trial to rank"):
        rank.rank(run_of(tmp_path, 2, pending=range(8)))


def test_without_style_pictures_content_decides(tmp_path: Path) -> None:
    def distances(_: int, position: int) -> tuple[float, None]:
        return 1.0 - position / 10, None

    ranking = rank.rank(run_of(tmp_path, 5, distances=distances))
    assert column(ranking, "content_layers")[0] == [DEPTHS[3]]
    assert "style_distance" not in ranking.schema.names
    assert any("by content alone" in note for note in rank.notes(ranking))
    with pytest.raises(QueryError, match="cannot rank by style"):
        rank.rank(run_of(tmp_path / "again", 5, distances=distances), "style")


# Statistics


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_pareto_front_is_the_definition(points: list[tuple[int, int]]) -> None:
    content, style = np.array(points, np.float64).T
    expected = [not any(o[0] <= p[0] and o[1] <= p[1] and o != p for o in points) for p in points]
    assert pareto_front(content, style).tolist() == expected


def test_shares_won_sum_to_one() -> None:
    scores = np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert shares_won(scores).tolist() == [0.25, 0.75, 0.0]


@pytest.mark.parametrize("num_pairs", [5, 8, 20])
def test_the_interval_covers_what_it_promises(num_pairs: int) -> None:
    """Latent qualities with noise give ranks of known mean; 95% of intervals must hold it, give or take."""
    generator = np.random.default_rng(num_pairs)
    merit = np.array([0.0, 0.1, 0.3, 0.6, 1.5])

    def ranks_of(rows: int) -> Any:
        return rankdata(merit + generator.normal(size=(rows, len(merit))), axis=1)

    truth = ranks_of(200_000).mean(axis=0)
    repetitions, held = 150, 0.0
    for _ in range(repetitions):
        low, high = bootstrap_interval(ranks_of(num_pairs), spread=1.0)
        held += ((low <= truth) & (truth <= high)).mean()
    assert 0.92 <= held / repetitions <= 0.98


def test_an_interval_is_the_same_every_time() -> None:
    scores = np.random.default_rng(0).random((12, 3))
    once, again = (bootstrap_interval(scores, spread=0.0) for _ in range(2))
    assert [each.tolist() for each in once] == [each.tolist() for each in again]
