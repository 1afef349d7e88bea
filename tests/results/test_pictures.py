from __future__ import annotations

import pytest

from nst_batch.errors import ImageError
from nst_batch.results.pictures import finished_picture
from nst_batch.store.run_directory import RunDirectory
from tests import small_run


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
