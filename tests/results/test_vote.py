from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nst_batch.cli import app
from nst_batch.errors import QueryError
from nst_batch.results import votes
from nst_batch.results.votes import write_vote_page
from nst_batch.store.run_directory import RunDirectory
from tests import browser, small_run
from tests.small_run import distances_of

LAYERS = ("block1_conv1", "block3_conv1", "block4_conv2")


def layers_run(folder: Path, **options: Any) -> RunDirectory:
    """Two contents under one style and three content layers; a name that would be markup."""
    contents = small_run.inputs(folder / "photos", ["a.png", "<b>b.png"])
    [style] = small_run.inputs(folder / "styles", ["s.png"])
    chosen = small_run.configurations(*({"content_layers": (layer,)} for layer in LAYERS))
    trials = list(small_run.plan(contents, [[style]], chosen))
    return small_run.write(folder / "run", trials, study={"name": "<i>layers"}, **options)


def page_of(run: RunDirectory) -> tuple[str, dict[str, Any]]:
    """The HTML and its data."""
    page = Path(write_vote_page(run)).read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    return page, json.loads(match[1])


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page, data = page_of(layers_run(tmp_path))
    assert "default-src 'none'; img-src data:;" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "<i>layers" not in page
    assert [len(pair["pictures"]) for pair in data["pairs"]] == [3, 3]
    assert all(url.startswith("data:image/webp") for pair in data["pairs"] for url in pair["pictures"].values())


def test_masks_stand_in_the_corners_of_their_pictures(tmp_path: Path) -> None:
    [content, style] = small_run.inputs(tmp_path, ["c.png", "s.png"])
    content = small_run.masked(content, tmp_path / "mask.png", "#00ff00")
    chosen = small_run.configurations(*({"content_layers": (layer,)} for layer in LAYERS))
    run = small_run.write(tmp_path / "run", list(small_run.plan([content], [[style]], chosen)))
    [pair] = page_of(run)[1]["pairs"]
    urls = [each["picture"] for each in pair["originals"]]
    shown = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls]
    green = [int((np.abs(np.asarray(each, int) - (0, 255, 0)).max(axis=-1) < 30).sum()) for each in shown]
    assert 0 < green[0] < shown[0].width * shown[0].height / 9
    assert green[1] == 0


def test_votes_name_pairs_as_the_table_does(tmp_path: Path) -> None:
    run = layers_run(tmp_path)
    _, data = page_of(run)
    rows = run.table("trials", ["content_sha256", "style_sha256", "configuration"]).to_pylist()
    for pair in data["pairs"]:
        own = {name: pair[name] for name in ("content_sha256", "style_sha256")}
        same = {row["configuration"] for row in rows if own.items() <= row.items()}
        assert same == set(pair["pictures"])


def test_pairs_without_a_choice_are_left_out(tmp_path: Path) -> None:
    _, data = page_of(layers_run(tmp_path, failing=[0], pending=[1, 3]))
    [pair] = data["pairs"]
    assert len(pair["pictures"]) == 2


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="two finished pictures to compare, found none"):
        write_vote_page(layers_run(tmp_path, failing=range(6)))


def test_no_more_is_shown_than_a_page_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes, "MAX_PAIRS", 1)
    monkeypatch.setattr(votes, "MAX_CONFIGURATIONS", 2)
    _, data = page_of(layers_run(tmp_path))
    assert [len(pair["pictures"]) for pair in data["pairs"]] == [2]


# In a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    folder = tmp_path_factory.mktemp("vote")
    url = Path(write_vote_page(layers_run(folder))).as_uri()
    with browser.opened(url, folder / "profile", 1000, 800) as opened:
        yield opened


def shown(page: browser.Browser) -> list[str]:
    """The addresses of the left and the right picture."""
    urls: list[str] = page.run("return [...document.querySelectorAll('#choices img')].map((image) => image.src)")
    return urls


def count(page: browser.Browser) -> str:
    return str(page.run("return document.getElementById('count').textContent"))


def saved(page: browser.Browser, folder: Path, save: Callable[[], None]) -> dict[str, Any]:
    """What is in the file that `save` makes the browser save in a folder."""
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    save()
    for _ in range(100):
        if (folder / "votes.json").exists():
            return dict(json.loads((folder / "votes.json").read_text()))
        time.sleep(0.1)
    raise AssertionError("nothing was saved")


@pytest.mark.slow
class TestInChromium:
    def test_it_is_quiet_and_stays_at_home(self, page: browser.Browser) -> None:
        assert browser.stays_at_home(page)

    def test_no_layer_and_no_name_is_shown(self, page: browser.Browser) -> None:
        text = page.run("return document.body.innerText")
        assert not any(name in text for name in (*LAYERS, "a.png", "b.png", "layers"))

    def test_clicks_and_keys_vote_and_the_file_says_what_was_chosen(
        self, page: browser.Browser, tmp_path: Path
    ) -> None:
        pairs = page.run("return JSON.parse(document.getElementById('data').textContent)")["pairs"]
        names = {url: name for pair in pairs for name, url in pair["pictures"].items()}
        seen = []
        choices = ["[data-choice=left]", "[data-choice=right]", "left", "right", "[data-choice=tie]", "down"]
        for choice in choices:
            seen.append([names[url] for url in shown(page)])
            if choice.startswith("["):
                page.click(choice)
            else:
                page.press(choice)
        assert count(page) == "6 votes."
        file = saved(page, tmp_path, lambda: page.click("#save"))
        assert file["run"] == "<i>layers"
        found = [(each["better"], each["worse"]) for each in file["votes"]]
        turned = [False, True, False, True, False, False]
        assert found == [
            tuple(reversed(pair)) if turn else tuple(pair) for pair, turn in zip(seen, turned, strict=True)
        ]
        assert [each.get("tie", False) for each in file["votes"]] == [False] * 4 + [True] * 2
        known = {(pair["content_sha256"], pair["style_sha256"]) for pair in pairs}
        assert {(each["content_sha256"], each["style_sha256"]) for each in file["votes"]} == known
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", each["at"]) for each in file["votes"])
        # Every two configurations on some pair first; six comparisons are all that there are, each was asked once.
        assert len({frozenset(names) for names in seen[:3]}) == 3
        assert (
            len({(each["content_sha256"], frozenset((each["better"], each["worse"]))) for each in file["votes"]})
            == 6
        )

    def test_votes_outlive_the_page_and_can_be_taken_back(self, page: browser.Browser) -> None:
        page.run("location.reload()")
        time.sleep(0.5)
        assert count(page) == "6 votes."
        page.press("u")
        assert count(page) == "5 votes."
        page.click("#undo")
        assert count(page) == "4 votes."

    def test_it_fits_a_phone(self, page: browser.Browser) -> None:
        page.resize(390, 844)
        assert page.run("return document.documentElement.scrollWidth") <= 390
        bottom = page.run("return document.getElementById('save').getBoundingClientRect().bottom")
        assert bottom <= 844  # everything at one glance, without scrolling
        page.click("[data-choice=right]")
        assert count(page) == "5 votes."
        page.resize(844, 390)
        bottom = page.run("return document.getElementById('save').getBoundingClientRect().bottom")
        assert bottom <= 390  # nor when it is turned
        assert page.log("browser") == []


@pytest.mark.slow
def test_what_a_person_votes_orders_the_ranking_of_the_run(tmp_path: Path) -> None:
    """From `vote` to `rank --votes`, with the page's own file between them."""
    shares = [(0.6, 0.5), (0.8, 0.6), (0.1, 0.2)]  # the scores' order is 1, 0, 2
    run = layers_run(tmp_path, distances=lambda _, at: distances_of(*shares[at]))
    first, second, third = run.configurations
    written = CliRunner().invoke(app, ["vote", str(tmp_path / "run"), "--output", str(tmp_path / "pages")])
    assert written.exit_code == 0
    url = Path(written.stdout.strip()).as_uri()
    with browser.opened(url, tmp_path / "profile", 1000, 800) as page:
        vote_by_taste(page, [second, third, first])
        saved(page, tmp_path, lambda: page.press("s"))
    table = CliRunner().invoke(
        app, ["rank", str(tmp_path / "run"), "--votes", str(tmp_path / "votes.json"), "--format", "json"]
    )
    assert table.exit_code == 0
    rows = json.loads(table.stdout)
    assert [(row["configuration"], row["votes"]) for row in rows] == [(second, 4), (third, 4), (first, 4)]
    assert [row["rank"] for row in rows] == [1, 3, 2]  # by the scores
    strengths = [row["strength"] for row in rows]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[0] > 0 > strengths[2]
    assert "Ordered by 6 votes" in table.stderr
    assert "Votes and mean_rank: Kendall's tau 0.33 between their orders." in table.stderr
    assert "own agrees with 80% of 5 votes (38% to 96%)." in table.stderr


def vote_by_taste(page: browser.Browser, taste: list[str]) -> None:
    """Compares all three pictures of both pairs, best first in `taste`, by mouse and by keyboard in turn.

    The last two look alike at first sight; and the first vote is wrong, and taken back.
    """
    pairs = page.run("return JSON.parse(document.getElementById('data').textContent)")["pairs"]
    names = {url: name for pair in pairs for name, url in pair["pictures"].items()}
    page.press("right")
    page.click("#undo")
    assert count(page) == "0 votes."
    alike = {*taste[1:]}
    for number in range(6):
        left, right = (names[url] for url in shown(page))
        choice = "left" if taste.index(left) < taste.index(right) else "right"
        if {left, right} == alike:
            choice, alike = "tie", set()
        if number % 2:
            page.press({"tie": "down"}.get(choice, choice))
        else:
            page.click(f"[data-choice={choice}]")
    assert count(page) == "6 votes."
