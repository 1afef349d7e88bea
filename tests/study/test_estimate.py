"""What `nst-batch plan` says, with a machine whose speed is known, and the calibration that finds it out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nst_batch.cli.program import app
from nst_batch.cli.studies import described
from nst_batch.errors import StudyError
from nst_batch.inputs.fitting import operations
from nst_batch.records import Configuration
from nst_batch.study import calibration
from nst_batch.study.calibration import Machine, Rate
from nst_batch.study.estimate import Estimate, estimate
from nst_batch.study.model import Study, study_from_dict
from nst_batch.vocabulary import Encoding
from tests import simulated
from tests.study.test_plan import draw


class Known(Machine):
    """A machine on which an evaluation takes a second per 64×64 pixels, and a trial's rest two."""

    def rate(self, chosen: Configuration, width: int, height: int, format: Encoding) -> Rate:  # noqa: ARG002
        pixel = 1 / 64**2
        return Rate(width * height * pixel / operations(chosen, height, width), 2 * pixel)


KNOWN = Known(device=torch.device("cpu"), name="a known machine", threads=1, num_workers=4, memory_bytes=8 << 30)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    return [draw(tmp_path / f"photo-{level}.png", level) for level in range(3)]


def study(photos: list[str], tmp_path: Path, **changes: Any) -> Study:
    values: dict[str, Any] = {
        "name": "estimated", "content": photos, "style": [draw(tmp_path / "style.png", 200)],
        "image": {"size": 64}, "network": {"weights": "random:0", "pooling": "average"},
        "grid": {"content_layers": ["block2_conv2"], "style_layers": [["block1_conv1"]], "alpha": [1, 2]},
        "optimizer": {"steps": 10, "pyramid": "off"},
    }  # fmt: skip
    return study_from_dict(values | changes)


def found(photos: list[str], tmp_path: Path, changes: dict[str, Any] | None = None, **options: Any) -> Estimate:
    return estimate(study(photos, tmp_path, **(changes or {})), machine=KNOWN, **options)


def test_time_is_steps_times_their_price_and_what_each_trial_costs_besides(
    photos: list[str], tmp_path: Path
) -> None:
    made = found(photos, tmp_path)
    assert made.num_trials == made.num_runnable == made.num_batches == 6
    assert made.worker_seconds == pytest.approx(6 * (10 * 1.0 + 2.0), abs=2)  # opening the pictures takes a moment
    assert made.seconds == pytest.approx(made.worker_seconds / 4 + 15)
    assert made.sizes == ({"width": 64, "height": 64, "num_trials": 6},)


def test_other_sizes_are_timed_by_their_pixels(tmp_path: Path) -> None:
    shapes = [(64, 48), (64, 48), (64, 24)]
    photos = [draw(tmp_path / f"{index}.png", index, *shape) for index, shape in enumerate(shapes)]
    made = found(photos, tmp_path, {"image": {"size": 64, "fit": "keep"}})
    one = (10 * 1.0 + 2.0) * 0.75
    assert made.worker_seconds == pytest.approx(4 * one + 2 * one / 2, abs=2)
    assert [tuple(each.values()) for each in made.sizes] == [(64, 48, 4), (64, 24, 2)]


def test_price_and_deadline(photos: list[str], tmp_path: Path) -> None:
    made = found(photos, tmp_path, gpu_hour_price=3.6, deadline_seconds=55.0)
    made = replace(made, worker_seconds=72.0)
    assert made.cost == pytest.approx(0.072)
    assert made.num_workers_for_deadline == 2
    assert replace(made, deadline_seconds=20.0).num_workers_for_deadline is None
    assert "cost      0.07 (0.02 worker hours at 3.6)" in described(made)
    assert "2 workers like these for 55 s" in described(made)
    assert found(photos, tmp_path).cost is None


def test_bad_inputs_and_duplicates_are_named(photos: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "page.jpg"
    bad.write_bytes(b"<html>")
    made = found([*photos, str(bad), draw(tmp_path / "again.png", 0)], tmp_path)
    assert (made.num_trials, made.num_runnable) == (8, 6)
    assert (made.bad_inputs[0]["picture"], made.bad_inputs[0]["error_type"]) == (str(bad), "not_an_image")
    shown = described(made)
    assert "page.jpg" in shown
    assert "2 cannot run" in shown
    assert "again.png has the same content as" in shown
    as_json = made.to_dict()
    assert as_json["bad_inputs"][0]["error_type"] == "not_an_image"
    assert json.loads(json.dumps(as_json, allow_nan=False)) == json.loads(json.dumps(as_json))


def test_nothing_that_can_run_is_no_error(tmp_path: Path) -> None:
    bad = tmp_path / "page.jpg"
    bad.write_bytes(b"<html>")
    made = found([str(bad)], tmp_path)
    assert (made.num_runnable, made.worker_seconds, made.seconds) == (0, 0.0, 0.0)
    assert "none" in described(made)


def test_weights_that_are_not_here_are_noted_and_not_downloaded(photos: list[str], tmp_path: Path) -> None:
    network = {"weights": "http://127.0.0.1:9/absent.pth"}
    assert "a run downloads them from http://127.0.0.1:9/absent.pth" in described(
        found(photos, tmp_path, {"network": network})
    )


# The machine


def test_a_device_that_is_not_there_is_a_mistake_in_the_command() -> None:
    with pytest.raises(StudyError, match="expected auto, cpu or cuda, found 'tpu'"):
        Machine.here("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(StudyError, match="no GPU"):
            Machine.here("cuda")


def test_a_machine_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_LONG_ENOUGH_SECONDS", 0.0)
    threads = torch.get_num_threads()
    for arch in ("vgg16", "vgg16_c"):
        chosen = simulated.configuration(
            arch=arch, content_layers=("block3_conv3",), style_layers=("block1_conv1",)
        )
        rate = Machine.here("cpu").rate(chosen, 32, 32, "png")
        assert rate.operation_seconds > 0
        assert rate.pixel_seconds > 0
    assert torch.get_num_threads() == threads


# The command


def test_the_command_prints_a_table_or_json(photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_LONG_ENOUGH_SECONDS", 0.0)
    arguments = ["plan", "demo", "--content", *photos[:1], "--style", photos[1], "--size", "32", "--device", "cpu"]
    shown = CliRunner().invoke(app, [*arguments, "--gpu-hour-price", "2"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("demo: 7 trials\n")
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    values = json.loads(as_json.stdout)
    assert (values["num_trials"], values["num_bad_inputs"], values["cost"]) == (7, 0, None)
    wrong = CliRunner().invoke(app, [*arguments[:-1], "abacus"])
    assert isinstance(wrong.exception, StudyError)
