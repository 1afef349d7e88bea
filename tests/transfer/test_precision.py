"""Which arithmetic is chosen, and what is recorded of a run in a coarser one."""

from __future__ import annotations

import pytest
import torch

from nst_batch.transfer import Objective, SolveOptions, Targets, build_targets, precision_used, solve
from nst_batch.vocabulary import Precision
from tests.transfer.problems import problem, weights

CPU = torch.device("cpu")


def targets(precision: Precision) -> Targets:
    return build_targets(
        "vgg16", weights(), pooling="average", normalization="imagenet", device=CPU, precision=precision
    )


@pytest.mark.parametrize(("asked", "used"), [("float32", "float32"), ("tf32", "float32"), ("bfloat16", "bfloat16")])
def test_a_cpu_computes_in_what_was_asked_for_if_it_can(asked: Precision, used: Precision) -> None:
    assert precision_used(targets(asked)) == used


@pytest.mark.parametrize(
    ("units", "used"), [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({}, "float32")]
)
def test_auto_is_bfloat16_where_the_processor_has_units_for_it(
    units: dict[str, bool], used: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False} | units)
    assert precision_used(targets("auto")) == used


def test_what_this_processor_can_is_known() -> None:
    assert torch.cpu.get_capabilities()["architecture"]
    assert precision_used(targets("auto")) in ("float32", "bfloat16")


def test_final_losses_are_judged_in_float32() -> None:
    [solution] = solve(targets("bfloat16"), [problem()], SolveOptions(steps=8))
    exact = Objective(targets("float32"), [problem()], "sum")(solution.image.unsqueeze(0))
    assert solution.curve.total[-1] == pytest.approx(float(exact.total), rel=1e-6)
    assert solution.curve.style[-1] == pytest.approx(float(exact.terms[0, 1]), rel=1e-6)
    assert solution.curve.total[solution.best_step] == solution.curve.total[-1] < solution.curve.total[0]


def test_bfloat16_ends_near_float32() -> None:
    options = SolveOptions(steps=40)  # a step that one of them rejects costs little by then
    quick, exact = (solve(targets(each), [problem()], options)[0].curve for each in ("bfloat16", "float32"))
    assert quick.total[-1] < 1.15 * exact.total[-1]
