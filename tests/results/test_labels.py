from __future__ import annotations

from nst_batch.results.labels import (
    configuration_label,
    layer_set,
    short_names,
    value_text,
    varying,
    weights_text,
)
from nst_batch.vocabulary import conv_layers
from tests import simulated, small_run

FIVE = tuple(f"block{block}_conv1" for block in range(1, 6))


def test_labels_say_what_distinguishes() -> None:
    chosen = small_run.configurations(
        {"content_layers": ("block4_conv2",), "alpha": 0.5}, {"content_layers": ("block5_conv1",), "alpha": 1.0}
    )
    fields = varying(chosen)
    assert fields == ("content_layers", "alpha")
    assert [configuration_label(each, fields) for each in chosen] == [
        "block4_conv2 · alpha 0.5",
        "block5_conv1 · alpha 1",
    ]
    assert configuration_label(chosen[0], ()) == "block4_conv2 / block1-2_conv1"


def test_layer_sets_are_short_where_they_run_on() -> None:
    assert layer_set(FIVE) == "block1-5_conv1"
    assert layer_set(FIVE[:1]) == "block1_conv1"
    assert layer_set(()) == "none"
    assert layer_set(("block1_conv1", "block3_conv1")) == "block1_conv1 + block3_conv1"
    assert layer_set(conv_layers("vgg16")[:2]) == "block1_conv1 + block1_conv2"


def test_pictures_are_named_by_what_tells_them_apart() -> None:
    assert short_names(["x/a/photo.jpg", "x/b/photo.jpg", "c.png"]) == {
        "x/a/photo.jpg": "a/photo",
        "x/b/photo.jpg": "b/photo",
        "c.png": "c",
    }
    assert short_names(["a.jpg", "a.png"]) == {"a.jpg": "a.jpg", "a.png": "a.png"}
    assert short_names(["v1.0/a", "v1.1/a"]) == {"v1.0/a": "v1.0/a", "v1.1/a": "v1.1/a"}
    assert short_names([".hidden", "a.b.png"]) == {".hidden": ".hidden", "a.b.png": "a.b"}


def test_numbers_that_differ_look_different() -> None:
    assert value_text("alpha", 1_000_000.0) != value_text("alpha", 1_000_001.0)
    assert [value_text("alpha", value) for value in (0.5, 1.0, 0.1 + 0.2, 1e-3)] == ["0.5", "1", "0.3", "0.001"]


def test_random_weights_are_named_as_such() -> None:
    assert "RANDOM" in weights_text(simulated.configuration())
    assert "RANDOM" not in weights_text(simulated.configuration(weights="imagenet"))


def test_a_weights_file_is_shown_by_its_name() -> None:
    for weights in ("/home/somebody/models/vgg.v2.pth", "https://host/models/vgg.v2.pth?sig=abc"):
        shown = weights_text(simulated.configuration(weights=weights))
        assert shown == "vgg16, average pooling, vgg.v2.pth weights"
