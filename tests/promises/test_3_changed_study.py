"""Promise 3: a study that was changed extends what is there, or is refused with the difference; never a mixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nst_batch.errors import StudyChangedError
from tests import tiny, workers


@pytest.mark.usefixtures("embedded_ray")
def test_a_study_is_extended_by_pictures_and_by_values_of_an_axis(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(4))
    tiny.run(tmp_path)
    first = {row["trial_id"]: row["trial_index"] for row in tiny.rows(tmp_path / "out")}
    tiny.collection(tmp_path, tiny.good(3, first=4))
    grid = {"alpha": [0.5, 1.0]}
    progress = tiny.run(tmp_path, changes={"grid": grid})
    assert (progress.num_trials, progress.ok) == (14, 14)
    assert sum(workers.calls(photos).values()) == 14
    after = {row["trial_id"]: row["trial_index"] for row in tiny.rows(tmp_path / "out")}
    assert after | first == after
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"optimizer": {"steps": 3}}, "optimizer.steps: 2 → 3"),
        ({"name": "another"}, "name: tiny → another"),
        ({"grid": {"alpha": [1.0]}}, "grid.alpha: [0.5] → [1.0]"),
    ],
)
def test_any_other_change_is_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], shown: str
) -> None:
    photos = tiny.collection(tmp_path, tiny.good(2))
    tiny.run(tmp_path)
    with pytest.raises(StudyChangedError) as caught:
        tiny.run(tmp_path, changes=change)
    assert shown in str(caught.value)
    assert caught.value.exit_code == 2
    assert sum(workers.calls(photos).values()) == 2
    assert tiny.run(tmp_path).ok == 2


@pytest.mark.usefixtures("embedded_ray")
def test_pictures_that_are_gone_or_other_than_they_were_are_refused(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(3))
    tiny.run(tmp_path)
    (photos / "good-01.png").write_bytes(tiny.picture(9999))
    with pytest.raises(StudyChangedError, match="of which 1 are not in the study as it is now"):
        tiny.run(tmp_path)
    (photos / "good-01.png").unlink()
    with pytest.raises(StudyChangedError, match=r"good-01\.png: changed or gone"):
        tiny.run(tmp_path)
