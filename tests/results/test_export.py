from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nst_batch.errors import ImageError, QueryError, RunDirectoryError
from nst_batch.results.export import export
from nst_batch.results.pictures import finished_picture
from nst_batch.store import tables
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import ExportKind
from tests import small_run

CONFIGURATIONS = small_run.configurations({})
NASTY = ["<b>\"q\" & 's'</b>.png", "été 夜.png", "a" * 120 + ".png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("export")
    contents = small_run.inputs(folder / "photos", [name.replace("/", "∕") for name in NASTY])
    styles = small_run.inputs(folder / "styles", ["s.png"])
    layers = ({"content_layers": ("block4_conv2",)}, {"content_layers": ("block1_conv1", "block2_conv1")})
    trials = list(small_run.plan(contents, [styles], small_run.configurations(*layers)))
    return small_run.write(folder / "run", trials, failing=[3], pending=[5])


def test_csv_has_every_row_and_lists_as_text(run: RunDirectory, tmp_path: Path) -> None:
    paths = export(run, "csv", tmp_path / "out")
    assert [path.name for path in paths] == ["trials.csv", "layers.csv"]
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[1]["content_layers"] == "block1_conv1 + block2_conv1"
    assert rows[3]["status"] == "failed"
    assert [Path(row["content_uri"]).name for row in rows[::2]] == [name.replace("/", "∕") for name in NASTY]


def test_long_has_a_row_per_step(run: RunDirectory, tmp_path: Path) -> None:
    [path] = export(run, "long", tmp_path / "out")
    table = pq.read_table(path)
    assert table.num_rows == 4 * 11
    one = table.filter(table["trial_index"].to_numpy() == 2).sort_by("step")
    expected = small_run.curve(2)
    assert one["step"].to_pylist() == list(expected.step)
    assert one["total"].to_pylist() == pytest.approx(list(expected.total))
    assert set(one["content_layers"].to_pylist()[0]) == {"block4_conv2"}


def test_regions_are_exported_where_there_are_any(tmp_path: Path) -> None:
    [plain, style] = small_run.inputs(tmp_path, ["c.png", "s.png"])
    masked = small_run.masked(plain, tmp_path / "mask.png", "white")
    trials = list(small_run.plan([masked, plain], [[style]], small_run.configurations({})))
    run = small_run.write(tmp_path / "run", trials)
    paths = export(run, "csv", tmp_path / "csv")
    assert [path.name for path in paths] == ["trials.csv", "layers.csv", "regions.csv"]
    with paths[-1].open(encoding="utf-8", newline="") as file:
        assert [(row["trial_index"], row["label"]) for row in csv.DictReader(file)] == [("0", "0"), ("0", "1")]
    steps, regions = export(run, "long", tmp_path / "long")
    assert (steps.name, regions.name) == ("curves_long.parquet", "regions.parquet")
    assert pq.read_table(regions)["label"].to_pylist() == [0, 1]
    [lines] = export(run, "hf", tmp_path / "hf")
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert [[region["area"] for region in row["regions"] or ()] for row in rows] == [[0.5, 0.5], []]
    chosen = export(run, "csv", tmp_path / "plain", where="trial_index = 1")
    assert [path.name for path in chosen] == ["trials.csv", "layers.csv"]


def test_a_region_has_a_colour_and_so_may_a_configuration(tmp_path: Path) -> None:
    [plain, style] = small_run.inputs(tmp_path, ["c.png", "s.png"])
    masked = small_run.masked(plain, tmp_path / "mask.png", "white")
    chosen = small_run.configurations({"color": "style"}, {"color": "luminance"})
    run = small_run.write(tmp_path / "run", list(small_run.plan([masked], [[style]], chosen)))
    regions = pq.read_table(export(run, "long", tmp_path / "long")[-1])
    assert regions["color"].to_pylist() == ["style", "style", "luminance", "luminance"]
    assert regions["region_color"].to_pylist() == run.table("regions")["color"].to_pylist()


def test_pictures_get_readable_names(run: RunDirectory, tmp_path: Path) -> None:
    [folder] = export(run, "images", tmp_path / "out")
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 4
    assert "été-夜__s__block4_conv2.png" in names
    assert "b-q-s-b__s__block4_conv2.png" in names
    assert all(len(name.encode()) < 255 and not set(name) & set("<>\"'&/ ") for name in names)
    with Image.open(folder / names[0]) as picture:
        assert picture.size == (small_run.EDGE, small_run.EDGE)


def test_the_hugging_face_folder_names_every_picture(run: RunDirectory, tmp_path: Path) -> None:
    [path] = export(run, "hf", tmp_path / "out")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["trial_index"] for row in rows] == [0, 1, 2, 4]
    assert all((path.parent / row["file_name"]).is_file() for row in rows)
    assert rows[1]["content_layers"] == ["block1_conv1", "block2_conv1"]


def test_where_chooses(run: RunDirectory, tmp_path: Path) -> None:
    [folder] = export(run, "images", tmp_path / "images", where="content_layer = 'block4_conv2'")
    assert len(list(folder.iterdir())) == len(NASTY)
    [path] = export(run, "long", tmp_path / "long", where="trial_index = 0 -- the first")
    assert pq.read_table(path).num_rows == 11


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for kind in get_args(ExportKind):
        with pytest.raises(QueryError, match="cannot be written"):
            export(run, kind, tmp_path / "file" / "out")


def test_a_blend_is_named_by_all_its_styles(tmp_path: Path) -> None:
    [content, *styles] = small_run.inputs(tmp_path / "photos", ["c.png", "s.png", "t.png"])
    run = small_run.write(tmp_path / "run", list(small_run.plan([content], [styles], small_run.configurations({}))))
    [folder] = export(run, "images", tmp_path / "out", names="{content}-{style}")
    assert [path.name for path in folder.iterdir()] == ["c-s-+-t.png"]


def test_what_is_there_is_not_overwritten(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(QueryError, match="expected a new or an empty folder"):
        export(run, "csv", tmp_path)
    with pytest.raises(QueryError, match="expected one of hf, csv, long, images"):
        export(run, "xml", tmp_path / "out")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["images", "hf"])
def test_no_link_is_followed_out_of_a_received_directory(tmp_path: Path, kind: ExportKind) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    run = small_run.write(tmp_path / "run", list(small_run.plan(contents, [contents], CONFIGURATIONS)))
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    [picture] = (tmp_path / "run" / "images").rglob("*.png")
    picture.unlink()
    picture.symlink_to(secret)
    with pytest.raises(ImageError, match="a link that leads out of the run directory"):
        export(run, kind, tmp_path / "out")
    assert not any(path.read_bytes() == b"secret" for path in (tmp_path / "out").rglob("*") if path.is_file())
    picture.unlink()
    inside = picture.with_name("ab" * 16 + ".png")
    inside.write_bytes(b"own")
    picture.symlink_to(inside)
    export(run, kind, tmp_path / "again")


def test_no_table_is_a_link_out_of_a_received_directory(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    run = small_run.write(tmp_path / "run", list(small_run.plan(contents, [contents], CONFIGURATIONS)))
    part = tmp_path / "run" / "trials" / "part-00000.parquet"
    part.rename(tmp_path / "elsewhere.parquet")
    part.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(RunDirectoryError, match="a link that leads out of the run directory"):
        export(run, "csv", tmp_path / "out")


@pytest.mark.parametrize("path", ["images/a\0b.png", "images/../../secret.png", "/etc/passwd", "images/ab/x.png\n"])
def test_a_picture_elsewhere_is_an_error_of_ours(tmp_path: Path, path: str) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    run = small_run.write(tmp_path / "run", list(small_run.plan(contents, [contents], CONFIGURATIONS)))
    part = tmp_path / "run" / "trials" / "part-00000.parquet"
    rows = [row | {"image_path": path} for row in pq.read_table(part).to_pylist()]
    part.write_bytes(tables.parquet_bytes(pa.Table.from_pylist(rows, tables.TRIALS), "trials"))
    with pytest.raises(ImageError, match="expected a path below images/"):
        export(run, "images", tmp_path / "out")
    with pytest.raises(ImageError, match="expected a path below images/"):
        finished_picture(run, path)


def test_names_that_are_equal_when_made_safe_stay_apart(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["A?.png", "a!.png", "a-.png"])
    trials = list(small_run.plan(contents, [contents[:1]], small_run.configurations({})))
    [folder] = export(small_run.write(tmp_path / "run", trials), "images", tmp_path / "out")
    assert len({path.name.casefold() for path in folder.iterdir()}) == 3


def test_names_come_from_a_template(run: RunDirectory, tmp_path: Path) -> None:
    [folder] = export(run, "images", tmp_path / "a", names="{trial_index} of {style}-{content_layers} α{alpha}")
    assert "0-of-s-block4_conv2-α0.5.png" in {path.name for path in folder.iterdir()}
    [folder] = export(run, "images", tmp_path / "b", names="the same")
    names = [path.stem for path in folder.iterdir()]
    assert len(names) == 4
    assert sum(name == "the-same" for name in names) == 1


@pytest.mark.parametrize(
    "names", ["", " ", "{", "{nonsense}", "{0}", "{content.__class__}", "{content[0]}", "{alpha:.3f}", "{alpha!r}"]
)
def test_a_template_holds_plain_columns_alone(run: RunDirectory, tmp_path: Path, names: str) -> None:
    with pytest.raises(QueryError, match="names"):
        export(run, "images", tmp_path / "out", names=names)
    assert not (tmp_path / "out").exists()
