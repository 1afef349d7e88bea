"""Judges that took no part: on constructed pictures of which the order is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nst_batch.errors import QueryError, WeightsError
from nst_batch.inputs.images import Pixels
from nst_batch.records import Picture
from nst_batch.results import rank
from nst_batch.results.cells import ended_trials
from nst_batch.results.judges import judged, multi_scale_similarity, pixel_scores
from nst_batch.scores import Scores
from nst_batch.store.run_directory import RunDirectory
from nst_batch.transfer import Problem, TargetImage
from tests import small_run
from tests.transfer.problems import picture

SIDE = 64


def striped(phase: float = 0.0) -> Pixels:
    """A style: stripes of orange and blue with a fine grain."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    wave = 0.5 + 0.5 * np.sin((x + 2 * y) / 2 + phase)
    orange, blue = np.array([0.9, 0.5, 0.1]), np.array([0.1, 0.2, 0.7])
    return np.asarray(orange[:, None, None] * wave + blue[:, None, None] * (1 - wave), np.float32)


CONTENT = picture(1, SIDE).pixels.numpy()
STYLE = striped()
PROBLEM = Problem(
    height=SIDE, width=SIDE, content=TargetImage(key="content", pixels=torch.from_numpy(CONTENT)),
    styles=(TargetImage(key="style", pixels=torch.from_numpy(STYLE)),), content_layers=(), style_layers=(),
)  # fmt: skip


def painted(strength: float) -> Pixels:
    """The content's light in the style's stripes: a transfer by hand."""
    light = CONTENT.mean(axis=0)
    mixed = light * (1 - strength) + strength * striped(1.0) * (0.4 + light)
    return np.asarray(np.clip(mixed, 0, 1), np.float32)


def score(image: Pixels) -> float:
    found = pixel_scores(image, PROBLEM).transfer_score
    assert found is not None
    return found


def test_a_picture_of_another_size_is_not_judged(tmp_path: Path) -> None:
    """Whoever receives a run does not know who made its pictures."""
    pictures = small_run.inputs(tmp_path / "photos", ["c.png", "s.png"])
    trials = list(small_run.plan(pictures[:1], [pictures[1:]], small_run.configurations({"seed": 0}, {"seed": 1})))
    run = small_run.write(tmp_path / "run", trials)
    first, second = run.table("trials")["image_path"].to_pylist()
    small_run.drawing(9, 2 * small_run.EDGE).save(tmp_path / "run" / first)
    assert (tmp_path / "run" / second).is_file()
    for judge in ("pixels", "random:3"):
        found = judged(run, ended_trials(run), judge)["transfer_score"]
        assert np.isfinite(found).tolist() == [False, True]


def test_doing_nothing_and_pasting_the_style_score_nothing() -> None:
    nothing, pasted = pixel_scores(CONTENT, PROBLEM), pixel_scores(STYLE, PROBLEM)
    assert (nothing.content_kept, nothing.style_taken) == pytest.approx((1, 0), abs=1e-6)
    assert (pasted.content_kept, pasted.style_taken) == pytest.approx((0, 1), abs=1e-6)


def test_a_transfer_by_hand_beats_noise_and_either_picture() -> None:
    noise = np.random.default_rng(0).random(CONTENT.shape).astype(np.float32)
    assert score(painted(0.7)) > 0.1
    assert score(painted(0.7)) > max(score(noise), score(CONTENT), score(STYLE))


def test_more_stripes_take_more_style_and_keep_less_content() -> None:
    found = [pixel_scores(painted(strength), PROBLEM) for strength in (0.2, 0.5, 0.8)]
    taken, kept = [each.style_taken or 0 for each in found], [each.content_kept or 0 for each in found]
    assert taken == sorted(taken)
    assert kept == sorted(kept, reverse=True)
    assert taken[0] < taken[-1]


def test_where_the_stripes_are_does_not_count() -> None:
    """Style is a distribution of patches: the same stripes elsewhere are the same style."""
    taken = pixel_scores(striped(2.0), PROBLEM).style_taken
    assert taken is not None
    assert taken > 0.85


def test_without_a_picture_there_is_a_reason() -> None:
    alone = Problem(
        height=SIDE, width=SIDE, content=None, styles=PROBLEM.styles, content_layers=(), style_layers=()
    )
    assert pixel_scores(CONTENT, alone) == Scores(score_reason="no content or no style picture")


def test_structural_similarity_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    light = CONTENT.mean(axis=0).astype(np.float64)
    noise = np.random.default_rng(0).normal(size=light.shape)
    found = [multi_scale_similarity(light + level * noise, light) for level in (0.0, 0.05, 0.2, 1.0)]
    assert found[0] == pytest.approx(1)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.5
    assert 0 <= multi_scale_similarity(light[:8, :8], light[8:16, :8]) <= 1


def a_run(tmp_path: Path, good: int) -> RunDirectory:
    """One pair, two configurations: the one at `good` made a transfer by hand, the other one nothing."""
    pictures = {"content": CONTENT, "style": STYLE}
    for name, pixels in pictures.items():
        Image.fromarray((np.moveaxis(pixels, 0, -1) * 255).round().astype(np.uint8)).save(tmp_path / f"{name}.png")
    [content, style] = [small_run.stored(tmp_path / f"{name}.png") for name in pictures]
    chosen = small_run.configurations({"alpha": 1.0, "size": SIDE}, {"alpha": 2.0, "size": SIDE})
    trials = list(small_run.plan([content], [[style]], chosen, edge=SIDE))
    run = small_run.write(tmp_path / "run", trials)
    for trial in trials:
        pixels = painted(0.7) if trial.trial_index % 2 == good else CONTENT
        path = tmp_path / "run" / f"images/{trial.trial_id[:2]}/{trial.trial_id}.png"
        Image.fromarray((np.moveaxis(pixels, 0, -1) * 255).round().astype(np.uint8)).save(path)
    return run


@pytest.mark.parametrize("judge", ["pixels", "random:7"])
@pytest.mark.parametrize("good", [0, 1])
def test_the_judges_know_a_transfer_from_nothing(tmp_path: Path, judge: str, good: int) -> None:
    ranking = rank.rank(a_run(tmp_path, good), judges=[judge])
    assert ranking["alpha"][0].as_py() == [1.0, 2.0][good]
    assert ranking["transfer_score"][0].as_py() > ranking["transfer_score"][1].as_py()
    assert "rank_by_own" in ranking.schema.names
    text = " ".join(rank.notes(ranking))
    assert f"Scores are those of the judge {judge}" in text
    own_is_right = good == 1  # by the distances that small_run makes up, of which later configurations are better
    assert f"{judge} and own: Kendall's tau {'1.00' if own_is_right else '-1.00'}" in text


def test_inputs_that_are_gone_cannot_be_judged_by(tmp_path: Path) -> None:
    run = a_run(tmp_path, 0)
    (tmp_path / "style.png").unlink()
    assert np.isnan(judged(run, ended_trials(run), "pixels")["transfer_score"]).all()


def test_a_judge_fetches_no_url_that_a_plan_names_unless_told_to(tmp_path: Path) -> None:
    [content] = small_run.inputs(tmp_path, ["content"])
    style = Picture(uri="https://nowhere.invalid/style.png", sha256="0" * 64)
    run = small_run.write(
        tmp_path / "run", list(small_run.plan([content], [[style]], small_run.configurations({})))
    )
    with pytest.raises(QueryError, match=r"nowhere.invalid/style.png: .* not fetched without --fetch"):
        rank.rank(run, judges=["pixels"])


def test_unknown_judges_are_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path, 0)
    with pytest.raises(QueryError, match="expected ,caffe or ,imagenet behind the weights"):
        rank.rank(run, judges=["random:7,nonsense"])
    with pytest.raises(WeightsError, match="there is no such file"):
        rank.rank(run, judges=["nobody"])
