"""What a study's `content` and `style` may name, and how pictures are opened."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from nst_batch.errors import StudyError
from nst_batch.inputs import inspecting
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.inspecting import inspect_all
from tests.object_store import bucket
from tests.pictures import file_of, gradient
from tests.web_server import serving_folder

__all__ = ["bucket"]

PNG = file_of(gradient(), "PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A tree of pictures, with what does not belong."""
    folder = tmp_path / "photos"
    for name in ("b.png", "a.jpg", "deep/c.JPEG", "deep/notes.txt", ".hidden/d.png", "deep/.e.png"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    return folder


def contents(*patterns: object) -> list[str]:
    return [each.uri for each in list_inputs([str(pattern) for pattern in patterns], [], "cross").content]


def test_a_folder_gives_its_pictures_at_any_depth_but_not_hidden_ones(photos: Path) -> None:
    assert contents(photos) == [str(photos / name) for name in ("a.jpg", "b.png", "deep/c.JPEG")]


def test_a_file_is_taken_whatever_it_is_called(photos: Path) -> None:
    assert contents(photos / "deep/notes.txt") == [str(photos / "deep/notes.txt")]


def test_globs_are_sorted_and_may_go_deep(photos: Path) -> None:
    assert contents(photos / "*.png") == [str(photos / "b.png")]
    assert contents(photos / "**/*.JPEG") == [str(photos / "deep/c.JPEG")]
    assert contents(photos / "[ab].*") == [str(photos / "a.jpg"), str(photos / "b.png")]


def test_a_folder_that_cannot_be_listed_is_told_with_its_path() -> None:
    """Left out without a word, its pictures would be missing from the study."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "locked").mkdir()
        for picture in ("a.png", "locked/b.png"):
            (top / picture).write_bytes(PNG)
        (top / "locked").chmod(0)
        with unprivileged():
            for pattern in (top, top / "**/*.png", top / "*/*.png", f"file://{top}"):
                with pytest.raises(StudyError, match=r"cannot be listed.*locked"):
                    contents(pattern)
            assert contents(top / "*.png") == [str(top / "a.png")]


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions bind."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_globs_may_name_folders_and_go_to_any_depth(photos: Path) -> None:
    for pattern in (
        "**/*.png",
        "*/*",
        "*/c.*",
        "deep/*.JPEG",
        "d*p/c.JPEG",
        "**/c.JPEG",
        "./*.png",
        "deep/../*.jpg",
    ):
        found = sorted(str(path) for path in photos.glob(pattern) if not path.is_dir())
        assert contents(photos / pattern) == found, pattern


@pytest.mark.parametrize("name", ["simplecache::file://{}", "reference://{}", "zip://*.png::file://{}"])
def test_chains_and_other_protocols_are_mistakes_in_the_study_and_bad_inputs_in_a_list(
    name: str, photos: Path
) -> None:
    name = name.format(photos / "b.png")
    with pytest.raises(StudyError, match=r"chains of URLs|expected one of http, https"):
        contents(name)
    (listed,) = contents(written(photos / "list.csv", {"uri": [name]}))
    assert next(inspect_all([listed])).error_type == "unreadable"


def test_a_name_with_glob_characters_means_itself_where_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "what[1].png"
    file.write_bytes(PNG)
    (tmp_path / "what1.png").write_bytes(PNG)
    assert contents(file) == [str(file)]


def test_what_is_named_twice_is_listed_once_in_the_order_of_the_study(photos: Path) -> None:
    assert contents(photos / "b.png", photos) == [str(photos / name) for name in ("b.png", "a.jpg", "deep/c.JPEG")]


def test_a_broken_link_is_listed_so_that_it_fails_by_name(tmp_path: Path) -> None:
    link = tmp_path / "gone.png"
    link.symlink_to(tmp_path / "nowhere.png")
    assert contents(link) == [str(link)]
    assert next(inspect_all([str(link)])).error_type == "missing"


def test_every_pattern_that_matches_nothing_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError) as caught:
        list_inputs([str(tmp_path / "*.png"), str(tmp_path / "empty")], [str(tmp_path / "absent.jpg")], "cross")
    assert len(caught.value.problems) == 3
    assert caught.value.problems[0].startswith("content: no pictures match")
    assert caught.value.problems[2].startswith("style: no pictures match")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_lists_hold_uris_relative_to_themselves(tmp_path: Path, suffix: str) -> None:
    uris = ["a b.png", "/elsewhere/c.png", "s3://bucket/d.png"]
    source = written(tmp_path / f"list{suffix}", {"uri": uris, "more": ["1", "2", "3"]})
    assert contents(source) == [str(tmp_path / "a b.png"), *uris[1:]]


def test_names_that_look_like_numbers_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("uri\n007\n08\n")
    assert contents(tmp_path / "list.csv") == [str(tmp_path / "007"), str(tmp_path / "08")]


def test_a_list_without_the_column_says_which_it_has(tmp_path: Path) -> None:
    source = written(tmp_path / "list.csv", {"url": ["a.png"]})
    with pytest.raises(StudyError, match=r"content: .*list.csv: .*expected a column 'uri', found url"):
        contents(source)


def test_an_empty_list_matches_no_pictures(tmp_path: Path) -> None:
    for name in ("list.csv", "list.jsonl"):
        (tmp_path / name).write_text("")
        with pytest.raises(StudyError, match=r"content: .*list"):
            contents(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pairs_may_be_listed(tmp_path: Path, suffix: str) -> None:
    columns = {"content": ["a.png", "b.png", "a.png"], "style": ["s.png", "s.png", "t.png"]}
    listing = list_inputs([], [], str(written(tmp_path / f"pairs{suffix}", columns)))
    a, b, s, t = (str(tmp_path / f"{name}.png") for name in "abst")
    pairs = [(content.uri, *(style.uri for style in styles)) for content, styles in listing.pairs or ()]
    assert pairs == [(a, s), (b, s), (a, t)]
    assert listing.uris == (a, b, s, t)


def test_a_list_of_pairs_with_a_hole_names_its_row(tmp_path: Path) -> None:
    source = written(tmp_path / "pairs.csv", {"content": ["a.png", ""], "style": ["s.png", "t.png"]})
    with pytest.raises(StudyError, match=r"pairs: .*row 2.*content"):
        list_inputs([], [], str(source))


def test_only_styles_and_their_masks_are_several_in_a_row(tmp_path: Path) -> None:
    """A ` + ` in the name of a content picture, or of a picture in a plain list, belongs to the name."""
    plain = written(tmp_path / "list.csv", {"uri": ["salt + pepper.png"]})
    assert contents(plain) == [str(tmp_path / "salt + pepper.png")]
    names = {
        "content": "salt + pepper.png",
        "style": "s.png + t.png",
        "content_mask": "m + n.png",
        "style_mask": "",
    }
    pairs = written(tmp_path / "pairs.csv", {key: [value] for key, value in names.items()})
    [(content, styles)] = list_inputs([], [], str(pairs)).pairs or ()
    assert content == (str(tmp_path / "salt + pepper.png"), str(tmp_path / "m + n.png"))
    assert [style.uri for style in styles] == [str(tmp_path / "s.png"), str(tmp_path / "t.png")]
    pairs = written(pairs, {key: [value or "m.png"] for key, value in names.items()})
    with pytest.raises(StudyError, match="row 1: expected a style_mask for each of 2 styles, found 1"):
        list_inputs([], [], str(pairs))


def test_a_list_may_be_in_a_folder_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "week#7?").mkdir()
    source = written(tmp_path / "week#7?" / "list.csv", {"uri": ["a.png"]})
    assert contents(source) == [str(tmp_path / "week#7?" / "a.png")]


def test_a_mask_that_could_be_of_two_pictures_is_refused(photos: Path, tmp_path: Path) -> None:
    (photos / "deep" / "b.jpg").write_bytes(PNG)
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("a", "b"):
        (masks / f"{name}.png").write_bytes(PNG)
    with pytest.raises(StudyError, match=r"b\.png could be the mask of .*/b\.png and of .*/deep/b\.jpg") as caught:
        list_inputs([str(photos)], [], "cross", str(masks))
    assert len(caught.value.problems) == 1
    (masks / "b.png").unlink()
    found = list_inputs([str(photos)], [], "cross", str(masks)).content
    assert [Path(each.uri).name for each in found if each.mask] == ["a.jpg"]


def test_the_fingerprint_changes_with_names_sizes_and_times_alone(photos: Path) -> None:
    def fingerprint() -> str:
        return list_inputs([str(photos)], [], "cross").fingerprint

    first = fingerprint()
    assert fingerprint() == first
    os.utime(photos / "a.jpg", (1, 1))
    second = fingerprint()
    (photos / "a.jpg").rename(photos / "z.jpg")
    third = fingerprint()
    (photos / "z.jpg").write_bytes(PNG + b"\0")
    assert len({first, second, third, fingerprint()}) == 4


def test_the_fingerprint_changes_with_the_pictures_that_a_list_names(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    source = str(written(tmp_path / "list.csv", {"uri": ["a.png"]}))
    first = list_inputs([source], [], "cross").fingerprint
    (tmp_path / "a.png").write_bytes(PNG + b"\0")
    assert list_inputs([source], [], "cross").fingerprint != first


def test_pictures_are_opened_in_order_and_bad_ones_say_why(photos: Path) -> None:
    (photos / "b.png").write_bytes(PNG[:60])
    found = list(inspect_all([str(photos / name) for name in ("b.png", "a.jpg", "absent.png")]))
    assert [each.error_type for each in found] == ["truncated", None, "missing"]
    assert (found[1].width, found[1].height) == gradient().size
    assert "b.png" in (found[0].error_message or "")


def test_more_pictures_than_are_opened_ahead(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "_AHEAD", 4)
    uris = [str(photos / "a.jpg")] * 11
    assert [each.picture.uri for each in inspect_all(iter(uris))] == uris


# Elsewhere


def test_a_bucket_is_listed_by_folder_glob_and_name(bucket: str) -> None:
    for name in ("photos/a.png", "photos/deep/b.jpg", "photos/readme.txt"):
        fsspec.filesystem("s3").pipe(f"{bucket}/{name}", PNG)
    assert contents(f"{bucket}/photos") == [f"{bucket}/photos/a.png", f"{bucket}/photos/deep/b.jpg"]
    assert contents(f"{bucket}/photos/") == [f"{bucket}/photos/a.png", f"{bucket}/photos/deep/b.jpg"]
    assert contents(f"{bucket}/photos/*.png") == [f"{bucket}/photos/a.png"]
    assert contents(f"{bucket}/photos/**/*.jpg") == [f"{bucket}/photos/deep/b.jpg"]
    assert contents(f"{bucket}/photos/readme.txt") == [f"{bucket}/photos/readme.txt"]
    with pytest.raises(StudyError, match="no pictures match"):
        contents(f"{bucket}/photos/*.gif")
    with pytest.raises(StudyError, match=r"absent\.png"):
        contents(f"{bucket}/photos/absent.png")


def test_a_list_in_a_bucket_is_relative_to_its_folder(bucket: str) -> None:
    fsspec.filesystem("s3").pipe(f"{bucket}/lists/list.csv", b"uri\na.png\n../photos/a.png\n")
    assert contents(f"{bucket}/lists/list.csv") == [f"{bucket}/lists/a.png", f"{bucket}/photos/a.png"]


def test_replacing_an_object_changes_the_fingerprint(bucket: str) -> None:
    files = fsspec.filesystem("s3")
    files.pipe(f"{bucket}/changing/a.png", PNG)
    first = list_inputs([f"{bucket}/changing"], [], "cross").fingerprint
    files.pipe(f"{bucket}/changing/a.png", PNG + b"\0")
    assert list_inputs([f"{bucket}/changing"], [], "cross").fingerprint != first


def test_a_protocol_that_nobody_knows_is_a_mistake_in_the_study() -> None:
    with pytest.raises(StudyError, match=r"content: nosuch://x/y.png: cannot be listed"):
        contents("nosuch://x/y.png")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of `tmp_path`."""
    with serving_folder(tmp_path) as url:
        yield url


def test_pictures_and_lists_on_a_web_server(photos: Path, server: str) -> None:
    (photos / "list.jsonl").write_text('{"uri": "a.jpg"}\n{"uri": "missing.jpg"}\n')
    listed = contents(f"{server}/photos/list.jsonl", f"{server}/photos/b.png?size=1*2")
    assert listed == [f"{server}/photos/{name}" for name in ("a.jpg", "missing.jpg", "b.png?size=1*2")]
    assert [each.error_type for each in inspect_all(listed)] == [None, "missing", None]


def written(path: Path, columns: dict[str, list[str]]) -> Path:
    """A list file of the kind that the path's suffix says."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    return path
