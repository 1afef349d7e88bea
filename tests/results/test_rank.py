from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import rankdata

from nst_batch.errors import QueryError
from nst_batch.records import Picture
from nst_batch.results import metrics, rank, rank_statistics
from nst_batch.results.rank_statistics import bootstrap_interval, pareto_front, shares_won
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, small_run

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
        return [0.4, 0.1, 0.2, 0.3][position] * (pair + 1), [0.3, 0.1, 0.4, 0.2][position] * 7**pair

    ranking = rank.rank(run_of(tmp_path, 6, distances=distances))
    assert [each[0] for each in column(ranking, "content_layers")] == [DEPTHS[i] for i in (1, 3, 2, 0)]
    assert column(ranking, "rank") == [1, 2, 3, 4]
    assert column(ranking, "mean_rank") == [1, 2.5, 3, 3.5]
    assert column(ranking, "won") == [1, 0, 0, 0]
    assert column(ranking, "pareto") == [True, False, False, False]
    assert column(ranking, "low")[0] == 1
    assert 1 < column(ranking, "high")[0] < 2
    assert column(ranking, "pairs") == [6] * 4


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
        return ([1000.0, 1.0] if pair == 0 else [0.1, 0.2])[position], 0.5

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
    ranking = rank.rank(run_of(tmp_path, rank_statistics.MIN_PAIRS - 1))
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


# Measures of pictures


def test_equal_pictures_are_equal_by_every_measure() -> None:
    image = small_run.drawing(1)
    assert metrics.ssim(image, image) == pytest.approx(1)
    assert metrics.color_distance(image, image) == 0


def test_color_distance_is_a_distance_between_colours() -> None:
    black, grey, white = (Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 119, 255))
    assert metrics.color_distance(black, white) == pytest.approx(100 / 3, abs=0.1)
    assert metrics.color_distance(black, grey) == pytest.approx(50 / 3, abs=0.3)
    shuffled = Image.fromarray(np.asarray(small_run.drawing(3))[::-1, ::-1].copy())
    assert metrics.color_distance(small_run.drawing(3), shuffled) == pytest.approx(0, abs=1e-9)


def test_what_is_too_small_or_of_another_size_has_no_ssim() -> None:
    assert metrics.ssim(Image.new("RGB", (4, 40)), Image.new("RGB", (4, 40))) is None
    assert metrics.ssim(Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))) is None


def test_ranking_by_pictures(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", [f"{number}.png" for number in range(3)])
    style: list[Picture] = small_run.inputs(tmp_path / "styles", ["s.png"])
    trials = list(small_run.plan(contents, [style], small_run.configurations({"alpha": 1.0}, {"alpha": 2.0})))
    run = small_run.write(tmp_path / "run", trials)
    for index, trial in enumerate(trials):  # the first configuration gives the content back
        picture = small_run.drawing(index // 2 if index % 2 == 0 else 50 + index)
        picture.save(tmp_path / "run" / f"images/{trial.trial_id[:2]}/{trial.trial_id}.png")
    ranking = rank.rank(run, "ssim")
    assert column(ranking, "alpha") == [1.0, 2.0]
    assert column(ranking, "ssim")[0] == pytest.approx(1)
    assert all(math.isfinite(each) for each in column(ranking, "color_distance"))
    Path(contents[0].uri).unlink()
    assert column(rank.rank(run, "ssim"), "alpha") == [1.0, 2.0]
