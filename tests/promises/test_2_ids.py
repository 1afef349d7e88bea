"""Promise 2: a trial's id is a hash of contents, configuration, weights and the algorithm, of nothing else.

Pinned, because a resume, an extension and every table ever written depend on it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nst_batch
from nst_batch.records import Configuration, Picture, trial_id
from tests.simulated import configuration

CONTENT, STYLE, OTHER = (Picture(uri=f"{digit}.jpg", sha256=digit * 64) for digit in "123")

GOLDEN: dict[str, tuple[Picture | None, tuple[Picture, ...], dict[str, Any]]] = {
    "plain": (CONTENT, (STYLE,), {}),
    "style alone": (None, (STYLE,), {"content_layers": (), "alpha": 0.0}),
    "content alone": (CONTENT, (), {"style_layers": (), "beta": 0.0}),
    "blend": (CONTENT, (STYLE, OTHER), {}),
    "unread": (Picture(uri="gone.jpg", sha256=None), (STYLE,), {}),
    "mask": (dataclasses.replace(CONTENT, mask=OTHER), (STYLE,), {}),
    "another network": (CONTENT, (STYLE,), {"arch": "vgg19", "pooling": "max", "precision": "bfloat16"}),
}
PINNED = {
    "plain": "57b6580854e319d68b3d8e058c71d1b0",
    "style alone": "ec21fda8179a416cf7d64e8cad31c93c",
    "content alone": "01c3f098e22c57ede59f279ce2b5a0a2",
    "blend": "6a2fa9c1114733f862e0574c46b1843e",
    "unread": "b0c7957a0ff46ea7332f24713223ee5b",
    "mask": "8cfadc10349d5c04bd660e40567ebcd4",
    "another network": "5153560e9130de3ce5df54d564b21612",
}


def identity(content: Picture | None, styles: tuple[Picture, ...], changes: dict[str, Any]) -> str:
    return trial_id(content, styles, configuration(**changes).identity())


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_are_what_they_have_always_been(name: str) -> None:
    """If this fails, no run directory can be resumed: right only if results change (`records.ALGORITHM`)."""
    assert identity(*GOLDEN[name]) == PINNED[name]


def test_ids_differ() -> None:
    assert len(set(PINNED.values())) == len(PINNED)


def test_ids_do_not_depend_on_names_labels_or_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = identity(CONTENT, (STYLE,), {})
    monkeypatch.setattr(nst_batch, "__version__", "99.0")
    renamed = dataclasses.replace(CONTENT, uri="s3://elsewhere/z.png")
    assert identity(renamed, (STYLE,), {"weights": "another label of the same file"}) == plain


_TEXT = st.text("abcdefgh_", min_size=1, max_size=8)
_LAYERS = st.lists(st.sampled_from(["block1_conv1", "block5_conv3"]), max_size=2, unique=True).map(tuple)
_NUMBER = st.floats(0, 1e6, allow_nan=False)
CONFIGURATIONS = st.builds(
    configuration,
    size=st.integers(16, 8192), fit=st.sampled_from(["crop", "stretch", "keep"]), weights=_TEXT,
    content_layers=_LAYERS, style_layers=_LAYERS, alpha=_NUMBER, beta=_NUMBER, tv_weight=_NUMBER,
    seed=st.integers(0, 2**63 - 1), steps=st.integers(1, 10**5), init=st.sampled_from(["content", "noise"]),
)  # fmt: skip


@given(CONFIGURATIONS, CONFIGURATIONS)
def test_equal_ids_mean_equal_configurations(one: Configuration, other: Configuration) -> None:
    same = dataclasses.replace(one, weights="") == dataclasses.replace(other, weights="")
    assert (one.identity() == other.identity()) == same


@given(CONFIGURATIONS, st.data())
def test_every_field_but_the_label_counts(chosen: Configuration, data: st.DataObject) -> None:
    names = [field.name for field in dataclasses.fields(chosen) if field.name != "weights"]
    name = data.draw(st.sampled_from(names))
    value = getattr(chosen, name)
    other: Any = f"{value}x"
    if isinstance(value, tuple):
        other = (*value, "x")
    elif isinstance(value, int | float):
        other = value + 1
    assert dataclasses.replace(chosen, **{name: other}).identity() != chosen.identity()


@given(st.permutations(["1" * 64, "2" * 64, "3" * 64]))
def test_the_order_of_pictures_counts_within_a_trial_only(order: list[str]) -> None:
    pictures = tuple(Picture(uri=f"{position}.jpg", sha256=digest) for position, digest in enumerate(order))
    ids = {trial_id(picture, (STYLE,), "c") for picture in pictures}
    assert ids == {trial_id(Picture(uri="x", sha256=digit * 64), (STYLE,), "c") for digit in "123"}
