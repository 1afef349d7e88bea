"""Masks are ordinary inputs: part of a trial's identity, planned, resumed, verified; bad ones are failed rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nst_batch.cli.studies import described
from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Progress
from nst_batch.inputs.finding import list_inputs
from nst_batch.results.rank import rank
from nst_batch.results.verify import verify
from nst_batch.results.votes import write_vote_page
from nst_batch.run import RunOptions, run_study
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.calibration import Machine
from nst_batch.study.estimate import estimate
from nst_batch.study.extension import extension
from nst_batch.study.model import Study, study_from_dict
from nst_batch.study.plan import Plan, make_plan
from tests.pictures import file_of, gradient

SIZE = 48
LAYERS = {"style_layers": [["block1_conv1", "block2_conv1"]], "content_layers": ["block3_conv1"]}
"""The deepest style layer sees 10×10 pixels."""


def drawn(path: Path, *boxes: tuple[tuple[int, int, int, int], str], size: int = SIZE) -> str:
    image = Image.new("RGB", (size, size), "black")
    for box, color in boxes:
        ImageDraw.Draw(image).rectangle(box, fill=color)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file_of(image, "PNG"))
    return str(path)


def photo(path: Path, turns: int) -> str:
    path.write_bytes(file_of(gradient(SIZE, SIZE).rotate(90 * turns), "PNG"))
    return str(path)


def study(folder: Path, **keys: Any) -> Study:
    values: dict[str, Any] = {
        "name": "regions", "image": {"size": SIZE}, "network": {"weights": "random:0", "pooling": "average"},
        "optimizer": {"steps": 2}, "grid": LAYERS, "pairs": str(folder / "pairs.csv"),
    }  # fmt: skip
    return study_from_dict({key: value for key, value in (values | keys).items() if value is not None})


LEFT, RIGHT, FACE = (0, 0, 23, 47), (24, 0, 47, 47), (30, 10, 45, 25)
BAD = {
    "missing": ("nowhere.png", "missing"),
    "text": ("text.png", "not_an_image"),
    "rainbow": ("rainbow.png", "bad_mask"),
    "empty": ("edge.png", "bad_mask"),
    "speck": ("speck.png", "bad_mask"),
    "stranger": ("stranger.png", "bad_mask"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A content, two styles, good masks, and a bad one of every kind."""
    for turns, name in enumerate(("c.png", "s.png", "t.png")):
        photo(tmp_path / name, turns)
    drawn(tmp_path / "good.png", (RIGHT, "red"), (FACE, "white"))
    drawn(tmp_path / "style.png", (RIGHT, "red"))
    drawn(tmp_path / "all-red.png", ((0, 0, 47, 47), "red"))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "rainbow.png").write_bytes(file_of(gradient(SIZE, SIZE), "PNG"))
    wide = Image.new("RGB", (400, 8), "black")
    ImageDraw.Draw(wide).rectangle((0, 0, 1, 7), fill="red")  # one pixel wide at 400 pixels: nothing is left at 48
    (tmp_path / "edge.png").write_bytes(file_of(wide, "PNG"))
    drawn(tmp_path / "speck.png", ((2, 2, 6, 6), "red"))
    drawn(tmp_path / "stranger.png", ((0, 0, 47, 47), "blue"))
    return tmp_path


def run(of: Study, out: RunDirectory) -> Progress:
    """On one worker of one core: several threads on fewer cores would wait for each other most of the time."""
    cluster = ClusterOptions(cpus_per_worker=1, max_workers=1)
    return run_study(of, RunOptions(out=out.directory.root, cluster=cluster))


def pairs(folder: Path, *masks: tuple[str, str]) -> None:
    rows = [f"c.png,s.png + t.png,{content},{style}" for content, style in masks]
    (folder / "pairs.csv").write_text("\n".join(["content,style,content_mask,style_mask", *rows]) + "\n")


@pytest.mark.usefixtures("embedded_ray")
def test_good_masks_are_scored_and_bad_ones_are_failed_rows(folder: Path) -> None:
    good, bad = (
        ("good.png", "style.png + all-red.png"),
        [(name, "style.png + all-red.png") for name, _ in BAD.values()],
    )
    pairs(folder, good, ("", ""), *bad)
    out = RunDirectory(str(folder / "out"))
    progress = run(study(folder), out)
    assert (progress.ok, progress.failed) == (2, len(BAD))
    rows = {Path(row["content_mask_uri"] or "none").name: row for row in out.table("trials").to_pylist()}
    for name, kind in BAD.values():
        assert rows[name]["error_type"] == kind, rows[name]
        assert name in rows[name]["error_message"]
    assert "region #ff0000 of the content's mask is empty" in rows["edge.png"]["error_message"]
    assert "found #0000ff in the content's and" in rows["stranger.png"]["error_message"]
    regions = out.table("regions").to_pylist()
    assert [(row["color"], row["protected"]) for row in regions] == [
        ("#000000", False), ("#ff0000", False), ("#ffffff", True),
    ]  # fmt: skip
    assert {row["trial_id"] for row in regions} == {rows["good.png"]["trial_id"]}
    assert sum(row["area"] for row in regions) == pytest.approx(1)
    assert all((row["transfer_score"] is None) == row["protected"] for row in regions)
    assert len({row["trial_id"] for row in rows.values()}) == len(rows)
    assert verify(out).problems == []
    assert run(study(folder), out).ok == 2  # nothing is computed again
    drawn(folder / "speck.png", ((2, 2, 30, 30), "red"))
    pairs(folder, good, ("", ""), *(each for each in bad if each[0] != "speck.png"))
    with pytest.raises(Exception, match=r"speck.png: changed or gone"):
        run(study(folder), out)


def test_what_no_content_takes_of_a_style_is_told(folder: Path) -> None:
    pairs(folder, ("good.png", "style.png + stranger.png"), ("", "style.png + stranger.png"))
    chosen = study(folder)
    configurations = list(chosen.configurations(weights_sha256="0" * 64, normalization="imagenet"))
    plan = make_plan(chosen, list_inputs(*chosen.inputs), configurations=configurations, batch_size=1)
    told = [note.replace(str(folder), "") for note in plan.unused_regions]
    assert told == [
        "/t.png: no content has its region #0000ff; that part of the style is not used",
        "/s.png: in 1 of 2 pairs the content lacks its region #ff0000; that part of the style is not used",
    ]
    shown = described(estimate(chosen, machine=Machine.here("cpu")))
    assert all(f"note: {note}" in shown for note in plan.unused_regions)


@pytest.mark.usefixtures("embedded_ray")
def test_a_folder_of_masks_protects_what_is_white(folder: Path) -> None:
    drawn(folder / "masks" / "c.jpg.png", (FACE, "white"))  # another name: taken for no picture's
    drawn(folder / "masks" / "c.png", (FACE, "white"))
    keys: dict[str, Any] = {"content": [str(folder / "c.png")], "style": [str(folder / "s.png")], "pairs": None}
    chosen = study(folder, **keys, content_masks=str(folder / "masks"), optimizer={"steps": 12})
    out = RunDirectory(str(folder / "out"))
    assert run(chosen, out).ok == 1
    regions = {row["color"]: row for row in out.table("regions").to_pylist()}
    assert regions["#ffffff"]["protected"]
    assert not regions["#000000"]["protected"]
    plain = RunDirectory(str(folder / "plain"))
    assert run(study(folder, **keys, optimizer={"steps": 12}), plain).ok == 1
    left, top, right, bottom = FACE
    content = np.asarray(Image.open(folder / "c.png")).astype(float)
    changes = []
    for each in (out, plain):
        [row] = each.table("trials").to_pylist()
        found = np.asarray(Image.open(folder / each.directory.root / row["image_path"])).astype(float)
        changes.append((row["trial_id"], np.abs(found - content)[top:bottom, left:right].mean()))
    (masked, little), (unmasked, much) = changes
    assert masked != unmasked
    assert little < 0.6 * much


def test_a_picture_that_is_content_and_style_has_a_mask_as_each(folder: Path) -> None:
    drawn(folder / "masks" / "c.png", (FACE, "white"))
    keys: dict[str, Any] = {"content": [str(folder / "c.png")], "style": [str(folder / "c.png")], "pairs": None}
    masks = str(folder / "masks")
    for given in ({"content_masks": masks}, {"style_masks": masks}):
        listing = list_inputs(*study(folder, **keys, **given).inputs)
        [content], [style] = listing.content, listing.style
        assert [bool(content.mask), bool(style.mask)] == ["content_masks" in given, "style_masks" in given]


def test_a_mask_that_could_not_be_read_is_replaced_in_its_own_row(folder: Path) -> None:
    """Two trials of the same pictures with different masks: each has a place of its own in the plan."""
    pairs(folder, ("late.png", ""), ("later.png", ""))
    chosen = study(folder, pairs=str(folder / "pairs.csv"))
    configurations = list(chosen.configurations(weights_sha256="0" * 64, normalization="imagenet"))

    def plan() -> Plan:
        return make_plan(chosen, list_inputs(*chosen.inputs), configurations=configurations, batch_size=1)

    out = RunDirectory(str(folder / "out"))
    with Committer(out) as committer:
        committer.write_plan({"name": "regions", "study": chosen.shown()}, plan().trials())
        drawn(folder / "late.png", (FACE, "white"))
        drawn(folder / "later.png", (LEFT, "white"))
        added = extension(plan(), out, chosen.shown(), "out")
        committer.write_plan({"name": "regions", "study": chosen.shown()}, added)
    planned = list(out.iter_plan())
    names = [Path(trial.content.mask.uri).name for trial in planned if trial.content and trial.content.mask]
    assert names == ["late.png", "later.png"]
    assert [trial.error_type for trial in planned] == [None, None]


@pytest.mark.usefixtures("embedded_ray")
def test_votes_know_a_masked_pair_and_a_judge_reads_no_mask(folder: Path) -> None:
    pairs(folder, ("good.png", "style.png + all-red.png"))
    out = RunDirectory(str(folder / "out"))
    assert run(study(folder, grid=LAYERS | {"alpha": [0.5, 5]}), out).ok == 2
    page = Path(write_vote_page(out)).read_text()
    [told] = map(json.loads, re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL))
    recorded = set(out.table("trials")["content_sha256"].to_pylist())
    assert {pair["content_sha256"] for pair in told["pairs"]} == recorded
    for mask in ("good.png", "style.png", "all-red.png"):
        (folder / mask).unlink()
    assert rank(out, judges=["pixels"]).num_rows == 2
