from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nst_batch.errors import RunDirectoryError
from nst_batch.results import plots, report
from nst_batch.results.report import write_report
from nst_batch.results.verify import verify
from nst_batch.store import tables
from nst_batch.store.run_directory import RunDirectory
from tests import browser, simulated, small_run
from tests.web_server import serving_folder

NASTY = '<img src=x onerror="window.hacked=1">\'&</script> été 夜.png'
LAYERS = ("block1_conv1", "block3_conv1", "block4_conv2")
SETS = (("block1_conv1",), ("block1_conv1", "block2_conv1"))
Grid = tuple[RunDirectory, str, dict[str, Any]]


def grid_run(folder: Path, **options: Any) -> RunDirectory:
    """Six pairs under a grid of three content layers × two style sets × two alphas; a name that would be markup."""
    names = [NASTY.replace("/", "∕"), "b.png", "c.png"]
    contents = small_run.inputs(folder / "photos", names)
    styles = small_run.inputs(folder / "styles", ["s.png", "t.png"])
    chosen = small_run.configurations(
        *(
            {"content_layers": (layer,), "style_layers": style_set, "alpha": alpha}
            for layer in LAYERS
            for style_set in SETS
            for alpha in (0.5, 1.0)
        )
    )
    trials = list(small_run.plan(contents, [[style] for style in styles], chosen))
    study = {"name": "<b>nasty & co</b>"}
    return small_run.write(folder / "run", trials, study=study, **options)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A finished run of which one trial failed, its page and the page's data."""
    run = grid_run(tmp_path_factory.mktemp("grid"), failing=[5])
    return run, *page_of(run)


@pytest.fixture
def data(grid: Grid) -> dict[str, Any]:
    return grid[2]


def page_of(run: RunDirectory, folder: Path | None = None) -> tuple[str, dict[str, Any]]:
    """The HTML and its data."""
    page = Path(write_report(run, folder)).read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    data = json.loads(match[1], parse_constant=lambda name: pytest.fail(f"found {name}"))
    return page, data


def test_the_page_needs_nothing_else(grid: Grid) -> None:
    _, page, data = grid
    allowed = re.search(r'Content-Security-Policy" content="(.*?)"', page)
    assert allowed
    assert allowed[1].startswith("default-src 'none'; img-src 'self' file: data:;")
    assert "unsafe-eval" not in allowed[1]
    assert "connect-src" not in allowed[1]
    own = page.replace(plots.vega_javascript(), "")
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#|[\w-]+\.(?:png|svg))", own)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", own)
    assert len(data["trials"]) == 72
    assert all(trial["thumbnail"].startswith("data:image/webp") for trial in data["trials"] if trial["picture"])
    assert page.count("</script>") == 3


def test_what_comes_from_the_run_is_escaped(grid: Grid) -> None:
    _, page, data = grid
    assert "<img src=x" not in page
    assert "<b>nasty" not in page
    assert "&lt;b&gt;nasty &amp; co&lt;/b&gt;" in page
    assert any(NASTY.replace("/", "∕") in each["uri"] for each in data["inputs"])


def test_random_weights_are_named_as_such(grid: Grid) -> None:
    _, page, data = grid
    assert "RANDOM weights" in page
    assert data["study"]["random"]
    facts = data["provenance"]
    assert facts["weights"] == "random:0"
    assert facts["weights SHA-256"] == "ab" * 32
    assert facts["device"] == "cpu"


def test_every_plot_is_a_picture_too(grid: Grid) -> None:
    folder = Path(grid[0].directory.root) / "report"
    names = {path.name for path in folder.iterdir()}
    plotted = {"ranking", "tradeoff", "curves"}
    assert names == {"index.html", "sheet.png", "matrix.png"} | {
        f"{name}.{kind}" for name in plotted for kind in ("png", "svg")
    }
    for name in plotted:
        with Image.open(folder / f"{name}.png") as picture:
            assert len(set(picture.convert("RGB").resize((64, 64)).get_flattened_data())) > 4
        assert (folder / f"{name}.svg").read_text().startswith("<svg")


def test_the_ranking_leads_with_the_transfer_score(data: dict[str, Any]) -> None:
    spec = data["plots"]["ranking"]
    [dots] = [layer for layer in spec["layer"] if layer["mark"]["type"] == "circle"]
    assert dots["encoding"]["x"]["field"] == "transfer_score"
    rows = spec["datasets"]["ranking"]
    assert len(rows) == len(data["configurations"]) == 12
    assert [row["mean_rank"] for row in rows] == sorted(row["mean_rank"] for row in rows)
    assert all(row["score_low"] <= row["transfer_score"] <= row["score_high"] for row in rows)


def test_one_curve_per_layer_runs_along_alpha_with_pictures(data: dict[str, Any]) -> None:
    points = data["plots"]["tradeoff"]["datasets"]["points"]
    curves: dict[str, list[float]] = {}
    for point in points:
        curves.setdefault(point["curve"], []).append(point["strength"])
    assert len(curves) == len(LAYERS) * len(SETS)
    assert all(sorted(strengths) == [0.5, 1.0] for strengths in curves.values())
    shown = data["pairs"][1]["label"]  # on the first pair a trial failed
    assert data["plots"]["tradeoff"]["title"]["subtitle"].endswith(f"Pictures: {shown}.")
    thumbnails = [trial["thumbnail"] for trial in data["trials"] if trial["pair"] == 1]
    assert sorted(point["picture"] for point in points) == sorted(thumbnails)
    best = max(points, key=lambda point: point["transfer_score"])
    assert {param["name"]: param["value"] for param in data["plots"]["tradeoff"]["params"]} == {
        "shown": best["curve"]
    }


def test_without_alpha_every_configuration_is_a_point(tmp_path: Path) -> None:
    [content], [style] = small_run.inputs(tmp_path / "a", ["c.png"]), small_run.inputs(tmp_path / "b", ["s.png"])
    chosen = small_run.configurations(*({"content_layers": (layer,)} for layer in LAYERS))
    run = small_run.write(tmp_path / "run", list(small_run.plan([content], [[style]], chosen)))
    _, data = page_of(run)
    points = data["plots"]["tradeoff"]["datasets"]["points"]
    assert {point["label"] for point in points} == set(LAYERS)
    assert not (tmp_path / "run" / "report" / "matrix.png").exists()


def test_curves_are_shares_of_the_first_loss(data: dict[str, Any]) -> None:
    trials = {each["trial"]: each for each in data["plots"]["curves"]["datasets"]["trials"]}
    assert trials.keys() == set(range(72)) - {5}
    for index in (0, 71):
        own = small_run.curve(index).total
        assert trials[index]["total"] == pytest.approx([value / own[0] for value in own], rel=1e-3)
    params = {param["name"]: param["value"] for param in data["plots"]["curves"]["params"]}
    assert params["steps"] == list(range(11))


def test_altair_is_loaded_for_a_report_alone() -> None:
    loaded = "nst_batch.api, nst_batch.cli.program, nst_batch.results.sheets"
    script = f"import sys, {loaded}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "nst_batch.results.sheets" in done.stdout
    assert "'altair'" not in done.stdout
    assert "'vl_convert'" not in done.stdout


def test_elsewhere_the_pictures_are_still_found(grid: Grid, tmp_path: Path) -> None:
    _, data = page_of(grid[0], tmp_path / "other" / "place")
    picture = next(trial["picture"] for trial in data["trials"] if trial["picture"])
    assert (tmp_path / "other" / "place" / picture).resolve().is_file()


def test_a_run_below_a_name_that_urls_would_read_otherwise(tmp_path: Path) -> None:
    [picture] = small_run.inputs(tmp_path / "photos", ["p.png"])
    run = small_run.write(
        tmp_path / "run #1?%41", list(small_run.plan([picture], [[picture]], small_run.configurations({})))
    )
    _, data = page_of(run, tmp_path / "out")
    found = urljoin(f"{(tmp_path / 'out').as_uri()}/index.html", data["trials"][0]["picture"])
    assert Path(url2pathname(urlsplit(found).path)).is_file()


def test_a_picture_that_no_browser_shows_is_seen_by_its_thumbnail(tmp_path: Path) -> None:
    [picture] = small_run.inputs(tmp_path / "photos", ["p.png"])
    trials = list(small_run.plan([picture], [[picture]], small_run.configurations({})))
    run = small_run.write(tmp_path / "run", trials, encoding="tiff")
    _, data = page_of(run)
    assert list((tmp_path / "run").glob("images/*/*.tif"))
    assert data["trials"][0]["thumbnail"].startswith("data:image/webp")
    assert data["trials"][0]["picture"] is None
    assert not verify(run).problems


def test_a_damaged_picture_is_told_of(tmp_path: Path) -> None:
    [picture] = small_run.inputs(tmp_path / "photos", ["p.png"])
    run = small_run.write(
        tmp_path / "run", list(small_run.plan([picture], [[picture]], small_run.configurations({})))
    )
    (Path(run.directory.root) / run.table("trials")["image_path"][0].as_py()).unlink()
    _, data = page_of(run)
    [trial] = data["trials"]
    assert trial["thumbnail"] is None
    assert "no such file" in trial["reason"]


@pytest.mark.parametrize("total", [None, [], [None]])
def test_a_damaged_curve_is_left_out(tmp_path: Path, total: list[float] | None) -> None:
    run = grid_run(tmp_path)
    path = Path(run.directory.root) / "curves" / "part-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["total"] = total
    path.write_bytes(tables.parquet_bytes(pa.Table.from_pylist(rows, tables.CURVES), "curves"))
    _, data = page_of(run)
    trials = {each["trial"]: each for each in data["plots"]["curves"]["datasets"]["trials"]}
    assert "total" not in trials[0]
    assert "style" in trials[0]


def test_pairs_that_differ_in_their_masks_alone_have_labels_of_their_own(tmp_path: Path) -> None:
    [content, style] = small_run.inputs(tmp_path / "photos", ["c.png", "s.png"])
    masked = small_run.masked(content, tmp_path / "<b>.png", "white")
    run = small_run.write(
        tmp_path / "run", list(small_run.plan([content, masked], [[style]], small_run.configurations({})))
    )
    page, data = page_of(run)
    assert [pair["label"] for pair in data["pairs"]] == ["c × s (no mask)", "c × s (<b>)"]
    assert "(<b>)" not in page


@pytest.mark.parametrize("ended", [0, 1, 40])
def test_a_report_can_be_made_at_any_time(tmp_path: Path, ended: int) -> None:
    page, data = page_of(grid_run(tmp_path, pending=range(ended, 72)))
    assert "This run is not finished" in page
    assert len(data["trials"]) == ended
    assert data["study"]["counts"]["pending"] == 72 - ended
    assert bool(data["ranking"]["rows"]) == bool(ended)


def test_a_run_without_trials_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no trial"):
        write_report(small_run.write(tmp_path / "run", []))


def test_a_run_of_failures_alone(tmp_path: Path) -> None:
    _, data = page_of(grid_run(tmp_path, failing=range(72)))
    assert sum(failure["count"] for failure in data["failures"]) == 72
    assert data["failures"][0]["error_type"] == "RuntimeError"
    assert data["ranking"]["rows"] == []


def test_more_trials_than_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_TRIALS", 30)
    _, data = page_of(grid_run(tmp_path))
    assert len(data["trials"]) == 24
    assert len(data["pairs"]) == 2
    assert data["study"]["limits"] == ["Shown one by one: the first 2 of 6 pairs."]
    assert data["ranking"]["rows"][0]["pairs"] == 6


def test_a_reconstruction_study_shows_its_figure(tmp_path: Path) -> None:
    [picture] = small_run.inputs(tmp_path / "photos", ["p.png"])
    chosen = small_run.configurations(*({"content_layers": (layer,), "style_layers": ()} for layer in LAYERS))
    run = small_run.write(tmp_path / "run", list(small_run.plan([picture], [[]], chosen)))
    page, _ = page_of(run)
    assert 'id="reconstruction"' in page
    assert (tmp_path / "run" / "report" / "reconstruction.png").exists()


def test_an_object_store_takes_a_report() -> None:
    from nst_batch.store.committer import Committer

    run = RunDirectory("memory://reports/run")
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(4))
        for trial in simulated.trials(4):
            committer.commit(simulated.result(trial))
    assert write_report(run) == "memory://reports/run/report/index.html"
    assert run.directory.exists("report/index.html")


def test_a_report_fetches_nothing_unless_told_to(tmp_path: Path) -> None:
    [picture] = small_run.inputs(tmp_path / "photos", ["p.png"])
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, _: str, *details: Any) -> None:
            asked.append(str(details[0]))

    with serving_folder(tmp_path / "photos", Handler) as url:
        named = replace(picture, uri=f"{url}/p.png")
        run = small_run.write(
            tmp_path / "run", list(small_run.plan([named], [[picture]], small_run.configurations({})))
        )
        _, data = page_of(run)
        assert [bool(each["thumbnail"]) for each in data["inputs"]] == [False, True]
        assert "not fetched without --fetch" in data["inputs"][0]["reason"]
        assert asked == []
        write_report(run, fetch=True)
    assert asked


def masked_run(folder: Path) -> RunDirectory:
    """A pair of which both pictures have a mask."""
    pictures = small_run.inputs(folder / "photos", ["c.png", "s.png"])
    content, style = (
        small_run.masked(each, folder / f"mask{number}.png", "white") for number, each in enumerate(pictures)
    )
    chosen = small_run.configurations({"alpha": 0.5}, {"alpha": 1.0})
    return small_run.write(folder / "run", list(small_run.plan([content], [[style]], chosen)))


def test_masks_are_shown_with_their_pictures(tmp_path: Path) -> None:
    run = masked_run(tmp_path)
    (tmp_path / "mask1.png").unlink()
    _, data = page_of(run)
    masked, unmasked = data["inputs"]
    assert masked["mask"].startswith("data:image/webp")
    assert unmasked["thumbnail"].startswith("data:image/webp")
    assert unmasked["mask"] is None
    assert "mask1.png" in unmasked["reason"]


# In a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    folder = tmp_path_factory.mktemp("report")
    url = Path(write_report(grid_run(folder, failing=[5], pending=[71]))).as_uri()
    with browser.opened(url, folder / "profile", 1200, 900) as opened:
        yield opened


TIP = "const tip = document.getElementById('tip'); return tip.hidden ? null : tip.textContent"


def choose(page: browser.Browser, selector: str, value: str) -> None:
    """Sets a select box or a field, as a person does."""
    script = """const box = document.querySelector(arguments[0]); box.value = arguments[1];
        for (const name of ['input', 'change']) box.dispatchEvent(new Event(name));"""
    page.run(script, selector, value)


def column(page: browser.Browser, number: int) -> list[str]:
    """A column of the table of trials."""
    cells = f"#trial-table tbody tr td:nth-child({number + 1})"
    texts: list[str] = page.run(
        "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", cells
    )
    return texts


def center(page: browser.Browser, selector: str, share: float = 0.5) -> tuple[float, float]:
    """A point of an element, scrolled into view."""
    script = """const node = document.querySelector(arguments[0]); node.scrollIntoView({block: 'center'});
        const box = node.getBoundingClientRect();
        return [box.left + box.width * arguments[1], box.top + box.height / 2];"""
    x, y = page.run(script, selector, share)
    return x, y


@pytest.mark.slow
def test_a_mask_stands_in_the_corner_of_its_picture(tmp_path: Path) -> None:
    url = Path(write_report(masked_run(tmp_path))).as_uri()
    with browser.opened(url, tmp_path / "profile", 1200, 900) as page:
        script = """return [...document.querySelectorAll('#inputs .tile')].map((tile) => {
            const [all, mask] = [...tile.querySelectorAll('img')].map((image) => image.getBoundingClientRect());
            const insets = [mask.width, all.right - mask.right, all.bottom - mask.bottom];
            return insets.map((pixels) => pixels / all.width);
        })"""
        shares = page.run(script)
        assert len(shares) == 2
        for width, right, below in shares:
            assert 0.2 < width < 0.5
            assert 0 <= right < 0.1
            assert 0 <= below < 0.1


@pytest.mark.slow
class TestInChromium:
    def test_it_is_quiet_and_stays_at_home(self, page: browser.Browser) -> None:
        assert browser.stays_at_home(page)
        assert page.run("return window.hacked") is None
        blocked = "return fetch('https://example.com/').then(() => 'went out', () => 'blocked')"
        assert page.run(blocked) == "blocked"
        page.log("browser")

    def test_names_show_as_text(self, page: browser.Browser) -> None:
        assert page.run("return document.querySelector('h1').textContent") == "<b>nasty & co</b>"
        caption = page.run("return document.querySelector('#inputs figcaption').textContent")
        assert caption == f"content: {NASTY.replace('/', '∕').removesuffix('.png')}"

    def test_the_pair_can_be_chosen(self, page: browser.Browser) -> None:
        first = "return document.querySelector('#grid img').src"
        before = page.run(first)
        choose(page, "#grid-controls select[aria-label=pair]", "1")
        assert page.run(first) != before
        choose(page, "#grid-controls select[aria-label=pair]", "0")
        assert page.run(first) == before

    def test_the_axes_can_be_chosen(self, page: browser.Browser) -> None:
        heads = "return [...document.querySelectorAll('#grid th[scope=col]')].map((node) => node.textContent)"
        assert page.run(heads) == ["block1_conv1", "block1-2_conv1"]
        assert "kept ×" in page.run("return document.querySelector('#grid figcaption').textContent")
        choose(page, "#grid-controls select[aria-label=columns]", "3")
        assert page.run(heads) == ["0.5", "1"]
        choose(page, "#grid-controls select[aria-label=rows]", "0")
        assert page.run("return document.querySelectorAll('#grid tbody tr').length") == 6
        assert page.run("return document.querySelectorAll('#grid .originals figure').length") == 12
        assert page.run("return document.getElementById('inputs').offsetHeight") == 0
        choose(page, "#grid-controls select[aria-label=columns]", "-1")
        assert page.run("return document.querySelectorAll('#grid figure').length") == 6
        choose(page, "#grid-controls select[aria-label=rows]", "1")
        choose(page, "#grid-controls select[aria-label=columns]", "2")

    def test_a_picture_opens_and_arrows_move_on(self, page: browser.Browser) -> None:
        center(page, "#grid button.tile")
        page.click("#grid button.tile")
        text = "return document.getElementById('zoom-text').textContent"
        before = page.run(text)
        page.press("right")
        assert page.run(text) != before
        width = (
            "const node = document.getElementById('zoom-image'); return node.decode().then(() => node.naturalWidth)"
        )
        assert page.run(width) == small_run.EDGE
        page.press("escape")
        assert page.run("return document.getElementById('zoom').open") is False

    def test_the_swipe_handle_follows(self, page: browser.Browser) -> None:
        at = "return parseFloat(document.getElementById('swipe').style.getPropertyValue('--at'))"
        page.drag(center(page, ".stage input", 0.5), center(page, ".stage input", 0.25))
        assert page.run(at) == pytest.approx(25, abs=4)
        page.run("document.querySelector('.stage input').focus()")
        page.press(*["right"] * 4)
        assert page.run(at) == pytest.approx(27, abs=4)

    def test_tables_sort(self, page: browser.Browser) -> None:
        for reverse in (False, True):
            center(page, "#trial-table th:nth-child(6) button")
            page.click("#trial-table th:nth-child(6) button")
            values = [float(text) for text in column(page, 5) if text != "–"]
            assert len(values) > 40
            assert values == sorted(values, reverse=reverse)

    def test_tables_filter(self, page: browser.Browser) -> None:
        choose(page, "#trial-controls input", "SRC=X block3_conv1")
        assert len(column(page, 2)) == 8
        assert all(text.startswith("<img src=x") for text in column(page, 2))
        assert all(text.startswith("block3_conv1 /") for text in column(page, 3))
        choose(page, "#trial-controls input", "")
        choose(page, "#trial-controls select", "2")
        assert column(page, 1) == ["5"]
        choose(page, "#trial-controls select", "0")

    def test_points_speak_when_hovered_and_open_their_pictures(self, page: browser.Browser) -> None:
        page.hover(*center(page, "#tradeoff-plot .mark-symbol.role-mark path"))
        assert "style taken" in page.run(TIP)
        assert page.run("return document.querySelector('#tip img').src").startswith("data:image/webp")
        page.click("#tradeoff-plot image")
        assert page.run("return document.getElementById('zoom').open") is True
        page.press("escape")
        center(page, "#ranking-table tbody button")
        page.click("#ranking-table tbody button")
        assert page.run("return document.getElementById('zoom').open") is True
        page.press("escape")

    def test_pictures_stand_along_the_curve_that_is_chosen(self, page: browser.Browser) -> None:
        pictures = "return [...document.querySelectorAll('#tradeoff-plot image')].map((node) => node.href.baseVal)"
        before = page.run(pictures)
        assert len(before) == 2
        assert all(url.startswith("data:image/webp") for url in before)
        other = page.run("return document.querySelector('#tradeoff-plot option:not(:checked)').value")
        choose(page, "#tradeoff-plot select", other)
        time.sleep(0.3)
        assert set(page.run(pictures)).isdisjoint(before)

    def test_curves_are_of_one_loss_and_of_one_configuration(self, page: browser.Browser) -> None:
        lines = "return document.querySelectorAll('#curves-plot .mark-line path').length"
        everything = page.run(lines)
        first = page.run("return document.querySelector('#curves-plot option:nth-child(2)').value")
        choose(page, "#curves-plot select", first)
        time.sleep(0.3)
        assert page.run(lines) == 6 + 1  # a pair's trial each, and their median
        assert everything == 12
        x, y = center(page, "#curves-plot .mark-symbol.role-mark path")
        page.hover(x, y)
        assert "step" in page.run(TIP)
        page.run("document.querySelector('#curves-plot input[type=radio]:not(:checked)').click()")
        assert page.run(lines) == 6 + 1

    @pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
    def test_it_fits_phones_and_the_dark(self, page: browser.Browser, width: int, dark: bool) -> None:
        page.resize(width, 844, dark=dark)
        time.sleep(0.4)
        assert page.run("return document.documentElement.scrollWidth") <= width
        color = page.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", color)[:3])) < 200) == dark
        page.resize(1200, 900)

    def test_nothing_of_all_this_was_an_error(self, page: browser.Browser) -> None:
        assert page.log("browser") == []
