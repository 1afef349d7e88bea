"""The typed study: defaults, checks, rules between keys, round trips and the grid."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nst_batch import vocabulary
from nst_batch import vocabulary as layers
from nst_batch.errors import StudyError, without_secrets
from nst_batch.records import Configuration
from nst_batch.study.model import Grid, ImageOptions, Network, Optimizer, Study, study_from_dict
from nst_batch.study.reading import load_study

PICTURES = {"name": "s", "content": ["/c.jpg"], "style": ["/s.jpg"]}
FIVE = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")


def study_with(**keys: Any) -> Study:
    """A study with pictures, and `section_key=value` put at `section.key`."""
    values: dict[str, Any] = dict(PICTURES)
    for key, value in keys.items():
        section, _, name = key.partition("__")
        if name:
            values.setdefault(section, {})[name] = value
        else:
            values[section] = value
    return study_from_dict(values)


def problems(**keys: Any) -> tuple[str, ...]:
    with pytest.raises(StudyError) as caught:
        study_with(**keys)
    return caught.value.problems


def no_pictures(side: str, reason: str) -> str:
    return f"{side}: no {side} pictures, and {reason} needs them; give --{side}, or name them in the study file"


def words(literal: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(get_args(literal))


def several(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(entries, min_size=1, max_size=3).map(tuple)


names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
positive = st.floats(1e-12, 1e12)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    arch = draw(words(vocabulary.Arch))
    layer_sets = st.lists(st.sampled_from(layers.layer_names(arch)), min_size=1, max_size=4, unique=True)
    style_set = tuple(sorted(draw(layer_sets), key=layers.block_and_index))
    weights = st.lists(positive, min_size=len(style_set), max_size=len(style_set)).map(tuple)
    weights_name = st.sampled_from(["imagenet_v1", "random:7", "/w.pth", "https://x.org/w.pth"])
    return Study(
        name=draw(names),
        content=tuple(draw(st.lists(names, min_size=1, max_size=3))),
        style=tuple(draw(st.lists(names, min_size=1, max_size=3))),
        pairs=draw(st.sampled_from(["cross", "zip", "blend"])),
        image=ImageOptions(size=draw(st.integers(32, 8192)), fit=draw(words(vocabulary.Fit))),
        network=Network(arch=arch, weights=draw(weights_name), pooling=draw(words(vocabulary.Pooling))),
        grid=Grid(
            content_layers=draw(several(layer_sets.map(tuple))),
            style_layers=(style_set,),
            style_layer_weights=draw(several(st.just(()) | weights)),
            alpha=draw(several(positive)),
            beta=draw(several(st.floats(0, 1e12))),
            style_scale=draw(several(st.floats(1, 10))),
            color=draw(several(words(vocabulary.Color))),
            init=draw(several(words(vocabulary.Init))),
            seed=draw(several(st.integers(0, 2**63 - 1))),
        ),
        optimizer=Optimizer(
            name=draw(words(vocabulary.OptimizerName)),
            steps=draw(st.integers(1, 100_000)),
            learning_rate=draw(st.floats(1e-9, 1)),
            pyramid=draw(words(vocabulary.Pyramid)),
            plateau=draw(st.floats(0, 1, exclude_max=True)),
        ),
        loss=draw(words(vocabulary.Loss)),
        precision=draw(words(vocabulary.Precision)),
    )


@settings(max_examples=40, deadline=None)
@given(studies())
def test_a_study_survives_its_dictionary_json_and_pickle(study: Study) -> None:
    assert study_from_dict(study.to_dict()) == study
    text = json.dumps(study.to_dict(), allow_nan=False)
    assert study_from_dict(json.loads(text)) == study
    assert pickle.loads(pickle.dumps(study)) == study


@settings(max_examples=30, deadline=None)
@given(studies())
def test_a_study_survives_its_yaml_file(tmp_path_factory: pytest.TempPathFactory, study: Study) -> None:
    path = tmp_path_factory.getbasetemp() / "study.yaml"
    study = replace(study, content=("/c.jpg",), style=("https://x.org/s.jpg",))
    path.write_text(json.dumps(study.to_dict(), ensure_ascii=False), encoding="utf-8")
    assert load_study(str(path)) == study
    study = replace(study, name="a study")  # PyYAML writes the name 1e3 unquoted
    path.write_text(yaml.safe_dump(study.to_dict(), sort_keys=False), encoding="utf-8")
    assert load_study(str(path)) == study


@settings(max_examples=40, deadline=None)
@given(studies())
def test_configurations_are_distinct_and_as_many_as_announced(study: Study) -> None:
    made = list(study.configurations(weights_sha256="0", normalization="caffe"))
    assert len(made) == study.num_configurations
    assert len(set(made)) == len({each.identity() for each in made}) == len(made)


def test_defaults() -> None:
    study = study_with()
    assert study == Study(name="s", content=("/c.jpg",), style=("/s.jpg",))
    (configuration,) = study.configurations(weights_sha256="ab", normalization="imagenet")
    assert configuration == Configuration(
        size=300,
        fit="crop",
        arch="vgg16",
        weights="imagenet",
        weights_sha256="ab",
        pooling="max",
        normalization="imagenet",
        loss="sum",
        content_layers=("block4_conv2",),
        style_layers=FIVE,
        style_layer_weights=(),
        alpha=0.5,
        beta=5.0,
        tv_weight=0.0,
        style_scale=1.0,
        color="style",
        init="content",
        seed=0,
        optimizer="lbfgs",
        steps=300,
        learning_rate=0.02,
        pyramid="auto",
        plateau=0.01,
        precision="auto",
    )


def test_the_first_axis_varies_slowest_and_repeated_values_count_once() -> None:
    study = study_with(
        grid__content_layers=["conv1_1", ["relu1_1"], "conv2_1"], grid__alpha=[1, 1.0, 2], grid__seed=3
    )
    made = study.configurations(weights_sha256="", normalization="caffe")
    found = [(*each.content_layers, each.alpha, each.seed) for each in made]
    assert found == [(f"block{block}_conv1", alpha, 3) for block in (1, 2) for alpha in (1.0, 2.0)]


def test_layers_are_stored_canonical_and_in_network_order() -> None:
    study = study_with(grid__content_layers=[["block4_pool", "relu4_2", "conv1_2"], "block4_cov1", []])
    assert study.grid.content_layers == (("block1_conv2", "block4_conv2", "block4_pool"), ("block4_conv1",), ())


def test_one_value_stands_for_a_list_of_one() -> None:
    study = study_with(content="/c.jpg", grid__content_layers="conv4_2", grid__alpha=1, grid__init="noise")
    assert study == study_with(grid__content_layers=[["block4_conv2"]], grid__alpha=[1.0], grid__init=["noise"])
    assert study_with(grid__style_layers=[], style=[]).grid.style_layers == ((),)


def test_a_study_written_in_python_is_checked_too_and_cannot_change() -> None:
    with pytest.raises(StudyError) as caught:
        Study(name="s", content=("c",), image=ImageOptions(size=7), grid=Grid(alpha=(-1.0,)))
    assert caught.value.problems == (
        "image.size: expected an integer from 16 to 16384, found 7",
        "grid.alpha[0]: expected a number of at least 0, found -1.0",
        no_pictures("style", "the style loss"),
    )
    study = study_with()
    with pytest.raises(FrozenInstanceError):
        study.name = "t"  # type: ignore[misc]
    with pytest.raises(StudyError):
        replace(study, loss="max")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"image__size": "big"}, "image.size: expected an integer from 16 to 16384, found 'big'"),
        ({"image__size": True}, "image.size: expected an integer from 16 to 16384, found true"),
        ({"image__size": 300.0}, "image.size: expected an integer from 16 to 16384, found 300.0"),
        ({"image__size": 16385}, "image.size: expected an integer from 16 to 16384, found 16385"),
        ({"image__fit": "crap"}, "image.fit: expected crop, stretch or keep, found 'crap'"),
        ({"image": 3}, "image: expected keys such as size, fit, found 3"),
        ({"optimizer__steps": 0}, "optimizer.steps: expected an integer from 1 to 100000, found 0"),
        ({"optimizer__steps": 100_001}, "optimizer.steps: expected an integer from 1 to 100000, found 100001"),
        (
            {"optimizer__learning_rate": 0},
            "optimizer.learning_rate: expected a number above 0 and at most 1, found 0",
        ),
        ({"optimizer__plateau": 1}, "optimizer.plateau: expected a number of at least 0 and below 1, found 1"),
        ({"optimizer__name": None}, "optimizer.name: expected lbfgs or adam, found nothing"),
        ({"output__quality": 101}, "output.quality: expected an integer from 1 to 100, found 101"),
        ({"grid__alpha": [1, float("nan")]}, "grid.alpha[1]: expected a number of at least 0, found nan"),
        ({"grid__beta": float("inf")}, "grid.beta: expected a number of at least 0, found inf"),
        ({"grid__beta": 10**400}, f"grid.beta: expected a number of at least 0, found 1{'0' * 55}…0"),
        ({"grid__tv_weight": [False]}, "grid.tv_weight[0]: expected a number of at least 0, found false"),
        ({"grid__alpha": []}, "grid.alpha: expected one value or more, found an empty list"),
        (
            {"grid__style_scale": 11},
            "grid.style_scale: expected a number of at least 0.1 and at most 10, found 11",
        ),
        ({"grid__seed": -1}, "grid.seed: expected an integer from 0 to 9223372036854775807, found -1"),
        ({"grid__init": ["noise", "zero"]}, "grid.init[1]: expected content, style or noise, found 'zero'"),
        ({"name": 7}, "name: expected text, found 7; write it in quotes"),
        ({"name": " "}, "name: expected text, found ' '"),
        ({"name": "a\nb"}, "name: expected one line of text without control characters, found 'a\\nb'"),
        ({"content": [{}]}, "content[0]: expected text, found keys"),
        (
            {"pairs": "crss"},
            "pairs: expected cross, zip, blend or a list file (.csv, .jsonl, .parquet), found 'crss'",
        ),
        (
            {"network__weights": "imagnet"},
            "network.weights: expected imagenet, imagenet_v1, random:SEED, or the path or URL of a state dict, "
            "found 'imagnet'",
        ),
        (
            {"network__weights": "random:1.5"},
            "network.weights: expected imagenet, imagenet_v1, random:SEED, or the path or URL of a state dict, "
            "found 'random:1.5'",
        ),
        ({"network__tile": 63}, "network.tile: expected auto, off or an integer from 64 to 16384, found 63"),
        ({"network__tile": True}, "network.tile: expected auto, off or an integer from 64 to 16384, found true"),
        (
            {"network__arch": "vgg19"},
            "network.weights: 'imagenet' exists for vgg16 only; for vgg19 use 'imagenet_v1'",
        ),
    ],
)
def test_what_was_expected_and_what_was_found(keys: dict[str, Any], problem: str) -> None:
    assert problems(**keys) == (problem,)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"optimizer__nme": "adam"}, "optimizer.nme: unknown key; did you mean 'name'?"),
        ({"alpha": 1}, "alpha: unknown key; did you mean 'grid.alpha'?"),
        ({"grid__loss": "sum"}, "grid.loss: unknown key; did you mean 'loss'?"),
        ({"image__zzz": 1}, "image.zzz: unknown key; the keys are size, fit"),
        ({"image__a\x1b[31m": 1}, "image.'a\\x1b[31m': unknown key; the keys are size, fit"),
    ],
)
def test_unknown_keys(keys: dict[str, Any], problem: str) -> None:
    assert problems(**keys) == (problem,)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"grid__content_layers": ["conv1_1", "relu9_9"]},
            "grid.content_layers[1]: 'relu9_9' is not a layer of vgg16; the layers are block1_conv1 … block5_pool",
        ),
        (
            {"grid__style_layers": [["conv1_1", "relu1_1"]]},
            "grid.style_layers[0][1]: block1_conv1 is listed twice",
        ),
        (
            {"image__size": 16, "grid__content_layers": "block5_pool"},
            "grid.content_layers: block5_pool needs an image of at least 32×32 pixels, this one is 16×16; "
            "choose a larger size or a shallower layer",
        ),
        (
            {"image__size": 64, "grid__style_layers": "conv5_1", "grid__style_scale": [1, 0.2]},
            "grid.style_layers: block5_conv1 needs an image of at least 16×16 pixels, this one is 13×13; "
            "choose a larger size or a shallower layer (the style picture is 0.2 of size 64)",
        ),
        (
            {"grid__style_layers": [["conv1_1", "conv2_1"], []], "grid__style_layer_weights": [[], [1, 0.5]]},
            "grid.style_layer_weights[1]: expected 0 weights, as style_layers[1] has that many layers, found 2; "
            "every entry must fit every entry of style_layers",
        ),
        (
            {"grid__style_layer_weights": 1},
            "grid.style_layer_weights: expected a list of weights, one per style layer, as in [[1, 1, 0.5]], "
            "found 1",
        ),
        (
            {"grid__style_layer_weights": [[0, 0, 0, 0, 0]]},
            "grid.style_layer_weights[0]: expected at least one weight above 0, found only 0",
        ),
        (
            {"grid__style_layers": [["conv2_1", "conv1_1"]], "grid__style_layer_weights": [[1, 2]]},
            "grid.style_layers[0]: with style_layer_weights the layers must be in network order: "
            "block1_conv1, block2_conv1",
        ),
        (
            {"grid__content_layers": [[], "conv1_1"], "grid__style_layers": [[], "conv1_1"]},
            "grid.style_layers: content_layers holds [] and style_layers holds [], so a configuration would "
            "have nothing to optimise",
        ),
        (
            {"grid__alpha": [1, 0], "grid__beta": [0, 1]},
            "grid.beta: alpha holds 0 and beta holds 0, so a configuration would have nothing to optimise",
        ),
        (
            {"grid__content_layers": [[]], "grid__beta": 0},
            "grid.beta: content_layers holds [] and beta holds 0, so a configuration would "
            "have nothing to optimise",
        ),
        (
            {"image__size": 16384, "output__format": "webp"},
            "output.format: WebP holds at most 16383 pixels along an edge, and image.size is 16384; "
            "use png, jpeg or tiff",
        ),
        (
            {"content": []},
            no_pictures("content", "the content loss"),
        ),
        (
            {"content": [], "grid__content_layers": []},
            no_pictures("content", "grid.init 'content'"),
        ),
        (
            {
                "content": [],
                "grid__content_layers": [],
                "grid__init": "noise",
                "grid__color": ["style", "luminance"],
            },
            no_pictures("content", "grid.color 'luminance'"),
        ),
        (
            {"style": [], "grid__style_layers": [], "grid__init": ["content", "style"]},
            no_pictures("style", "grid.init 'style'"),
        ),
        (
            {"pairs": "/pairs.csv", "style": []},
            "content: the list file under 'pairs' names the content pictures already; keep one",
        ),
    ],
)
def test_rules_between_keys(keys: dict[str, Any], problem: str) -> None:
    assert problems(**keys) == (problem,)


def test_studies_that_need_pictures_of_one_kind_only() -> None:
    assert study_with(content=[], grid__content_layers=[[]], grid__init=["noise", "style"]).content == ()
    assert study_with(style=[], grid__style_layers=[[]]).style == ()
    assert study_with(content=[], style=[], pairs="/pairs.csv").pairs == "/pairs.csv"


def test_all_problems_are_reported_at_once_and_each_of_them_once() -> None:
    found = problems(
        nme=1, style=[], image__size=1, network__arch="vgg1", grid__content_layers="conv9_9", grid__alpha=["x", -1]
    )
    assert [problem.split(":")[0] for problem in found] == [
        "image.size",
        "network.arch",
        "grid.alpha[0]",
        "grid.alpha[1]",
        "nme",
        "style",
    ]


def test_what_is_no_study_at_all() -> None:
    nothing: list[object] = [None, [], "text", 3]
    for values in nothing:
        with pytest.raises(StudyError, match="expected keys such as name, content, style, found"):
            study_from_dict(values)
    with pytest.raises(StudyError, match="name: expected text, found no such key"):
        study_from_dict({"content": "c", "style": "s"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(study=studies(), data=st.data())
def test_a_damaged_dictionary_is_a_study_error_or_a_study(study: Study, data: st.DataObject) -> None:
    values = study.to_dict()
    for _ in range(data.draw(st.integers(1, 3))):
        place: dict[str, Any] = values
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            key = data.draw(st.sampled_from(sorted(place)))
        place[key] = data.draw(json_values)
    with suppress(StudyError):
        again = study_from_dict(values)
        assert study_from_dict(again.to_dict()) == again


def test_a_study_is_shown_without_secrets_whatever_stands_in_its_names() -> None:
    names = ['https://host/a.png?sig=one"two&k=1', "https://host/ä.png?sig=drei", "C:\\plain.png"]
    shown = study_with(content=names, style=["s3://user:secret@bucket/b.png"], grid__beta=[1.0]).shown()
    assert shown["content"] == [without_secrets(name) for name in names]
    assert "secret" not in str(shown)
    assert "drei" not in str(shown)
    assert shown["grid"]["beta"] == [1.0]
