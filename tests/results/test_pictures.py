from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nst_batch.errors import ImageError
from nst_batch.results.pictures import finished_picture
from nst_batch.results.sheets import write_sheets
from nst_batch.results.votes import write_vote_page
from nst_batch.store.run_directory import RunDirectory
from tests import small_run
from tests.web_server import QuietFiles, serving_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("pictures")
    [content] = small_run.inputs(folder / "photos", ["a.png"])
    return small_run.write(
        folder / "run", list(small_run.plan([content], [[content]], small_run.configurations({})))
    )


@pytest.mark.parametrize("path", ["../secret.png", "images/../../secret.png", "/etc/passwd", "report/index.html"])
def test_pictures_come_from_the_run_alone(run: RunDirectory, path: str) -> None:
    with pytest.raises(ImageError, match="expected a path below images/"):
        finished_picture(run, path)


@pytest.mark.parametrize("write", [write_sheets, write_vote_page])
def test_no_url_that_a_plan_names_is_asked_unless_told_to(tmp_path: Path, write: Callable[..., object]) -> None:
    """A run may come from anybody."""
    content, style, mask = small_run.inputs(tmp_path / "photos", ["a.png", "s.png", "m.png"])
    asked: list[str] = []

    class Noting(QuietFiles):
        def log_request(self, *_: Any) -> None:
            asked.append(self.path)

    with serving_folder(tmp_path / "photos", Noting) as url:
        distant = replace(content, uri=f"{url}/a.png")
        of_url = replace(style, mask=replace(mask, uri=f"{url}/m.png"))
        chosen = small_run.configurations({"alpha": 0.5}, {"alpha": 1.0})
        run = small_run.write(tmp_path / "run", list(small_run.plan([distant], [[of_url]], chosen)))
        write(run)
        assert asked == []
        write(run, fetch=True)
        assert set(asked) == {"/a.png", "/m.png"}
