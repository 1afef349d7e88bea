"""Weights from files, from a real HTTP server, and from nowhere."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import torchvision

from nst_batch.errors import WeightsError
from nst_batch.inputs import fetching, weights
from nst_batch.transfer import Vgg
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import CONVS_PER_BLOCK, conv_layers
from tests.object_store import bucket
from tests.web_server import QuietFiles, serving_folder

__all__ = ["bucket"]


def state_dict(arch: str) -> dict[str, torch.Tensor]:
    """Torchvision's own model's, without its classifier, which would take seconds to make."""
    return {f"features.{key}": value for key, value in feature_layers(arch).state_dict().items()}


def feature_layers(arch: str) -> torch.nn.Sequential:
    """Torchvision's, with random weights."""
    letter = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}[arch]
    model: torch.nn.Sequential = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[letter])
    return model


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(state_dict("vgg16"), path)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 0.0)


def columns_of_the_paper(arch: str) -> torch.nn.Sequential:
    """The feature layers as table 1 of the VGG paper has them, in torchvision's order."""
    if arch == "vgg11_lrn":
        plain = feature_layers("vgg11")
        normalization = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
        return torch.nn.Sequential(*plain[:2], normalization, *plain[2:])
    if arch == "vgg16_c":
        layers = list(feature_layers("vgg16"))
        for position in (14, 21, 28):  # the third convolutions of blocks 3, 4 and 5
            old = layers[position]
            assert isinstance(old, torch.nn.Conv2d)
            layers[position] = torch.nn.Conv2d(old.in_channels, old.out_channels, 1)
        return torch.nn.Sequential(*layers)
    return feature_layers(arch)


@pytest.mark.parametrize("arch", sorted(CONVS_PER_BLOCK))
def test_every_architecture_computes_what_the_papers_does(arch: str, tmp_path: Path) -> None:
    model = columns_of_the_paper(arch).eval()
    path = tmp_path / "weights.pth"
    torch.save({f"features.{key}": value for key, value in model.state_dict().items()}, path)
    found = weights.resolve(str(path), arch, "max")
    network = Vgg(arch, weights.load(found, arch, "max"), normalization="imagenet")
    image = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        x = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        expected = model(x)
        last = network.features(image, [["block5_pool"]])["block5_pool"]
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_a_file_is_known_by_its_content(vgg16_file: Path) -> None:
    found = weights.resolve(str(vgg16_file), "vgg16", "max")
    assert found.sha256 == hashlib.sha256(vgg16_file.read_bytes()).hexdigest()
    assert found.normalization == "imagenet"
    assert weights.resolve(str(vgg16_file), "vgg16", "max", "caffe").normalization == "caffe"


@pytest.fixture
def server(vgg16_file: Path) -> Iterator[str]:
    with serving_folder(vgg16_file.parent) as url:
        yield url


def test_a_url_is_downloaded_once(server: str, vgg16_file: Path) -> None:
    found = weights.resolve(f"{server}/vgg16.pth", "vgg16", "max")
    assert found.path is not None
    assert found.path.read_bytes() == vgg16_file.read_bytes()
    before = found.path.stat().st_mtime_ns
    again = weights.resolve(f"{server}/vgg16.pth", "vgg16", "max")
    assert again.path == found.path
    assert found.path.stat().st_mtime_ns == before


def test_a_file_is_checked_against_the_hash_in_its_name(server: str, vgg16_file: Path) -> None:
    """When it is downloaded, and when it is in the cache already."""
    digest = weights.file_sha256(vgg16_file)[:8]
    for name in (f"vgg16-{digest}.pth", "vgg16-00000000.pth"):
        (vgg16_file.parent / name).write_bytes(vgg16_file.read_bytes())
    with pytest.raises(
        WeightsError, match=f"what came from http.*begins with 00000000, as in its name, found {digest}"
    ):
        weights.resolve(f"{server}/vgg16-00000000.pth", "vgg16", "max")
    path = weights.resolve(f"{server}/vgg16-{digest}.pth", "vgg16", "max").path
    assert path is not None
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(vgg16_file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"is damaged; remove it.*begins with {digest}"):
        weights.resolve(f"{server}/vgg16-{digest}.pth", "vgg16", "max")


def test_weights_may_be_in_a_bucket(bucket: str, vgg16_file: Path) -> None:
    fsspec.filesystem("s3").put(str(vgg16_file), f"{bucket}/weights/vgg16.pth")
    found = weights.resolve(f"{bucket}/weights/vgg16.pth", "vgg16", "max")
    assert found.sha256 == weights.file_sha256(vgg16_file)
    with pytest.raises(WeightsError, match=r"cannot be downloaded.*--weights FILE.*random:0"):
        weights.resolve(f"{bucket}/weights/none.pth", "vgg16", "max")


def test_a_refused_download_names_the_ways_out(server: str) -> None:
    for url in (f"{server}/missing.pth", "http://127.0.0.1:9/vgg16.pth"):
        with pytest.raises(WeightsError, match=r"cannot be downloaded.*--weights FILE.*random:0"):
            weights.resolve(url, "vgg16", "max")


def test_imagenet_is_the_original_vgg_with_its_own_scale(
    vgg16_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is already in torch's cache is used as it is, if it is what its name says."""
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "vgg16_features-amdegroot-88682ab5.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(vgg16_file.read_bytes())
    with pytest.raises(WeightsError, match=r"is damaged; remove it.*begins with 88682ab5"):
        weights.resolve("imagenet", "vgg16", "max")
    cached = cached.with_name(f"vgg16_features-amdegroot-{weights.file_sha256(vgg16_file)[:8]}.pth")
    cached.write_bytes(vgg16_file.read_bytes())
    published = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.value
    monkeypatch.setattr(published, "url", f"https://nowhere.invalid/{cached.name}")
    found = weights.resolve("imagenet", "vgg16", "max")
    assert (found.path, found.normalization) == (cached, "caffe")
    with pytest.raises(WeightsError, match="imagenet_v1"):
        weights.resolve("imagenet", "vgg19", "max")


def test_wrong_keys_and_shapes_are_named(tmp_path: Path) -> None:
    state = state_dict("vgg16")
    del state["features.0.bias"]
    state["features.2.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "w.pth")
    found = weights.resolve(str(tmp_path / "w.pth"), "vgg16", "max")
    message = (
        r"features.0.bias \(block1_conv1\) is missing; .*features.2.weight \(block1_conv2\) has shape \(3, 3\)"
    )
    with pytest.raises(WeightsError, match=message):
        weights.load(found, "vgg16", "max")


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code in a weights file ran')",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        pickle.dumps({"features.0.weight": [1, 2]}, protocol=2),
        pickle.dumps(Malicious(), protocol=2),
    ],
    ids=["empty", "html", "no tensors", "code"],
)
def test_other_files_are_refused_and_never_run(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pth"):
        weights.load(weights.resolve(str(path), "vgg16", "max"), "vgg16", "max")


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected imagenet, imagenet_v1, random:SEED, a URL or a file"):
        weights.resolve(str(tmp_path / "none.pth"), "vgg16", "max")


def test_random_weights_are_a_function_of_the_seed() -> None:
    first, second = (weights.resolve(label, "vgg11", "average") for label in ("random:0", "random:1"))
    assert first.sha256 != second.sha256
    assert first.sha256 != weights.resolve("random:0", "vgg11", "max").sha256
    loaded = [weights.load(each, "vgg11", "average") for each in (first, first, second)]
    assert set(loaded[0]) == {f"{name}.{kind}" for name in conv_shapes("vgg11") for kind in ("weight", "bias")}
    for key, value in loaded[0].items():
        assert value.equal(loaded[1][key])
        assert not value.equal(loaded[2][key])


@pytest.mark.parametrize("arch", ["vgg11_lrn", "vgg16_c", "vgg16"])
def test_random_layers_pass_on_what_they_see(arch: str) -> None:
    """No layer is dead or blind: about half of it is active, and its features are as large as the others."""
    from nst_batch.transfer.random_weights import GAIN, dead_leaves

    found = weights.resolve("random:3", arch, "average")
    network = Vgg(arch, weights.load(found, arch, "average"), pooling="average")
    image = dead_leaves(64, torch.Generator().manual_seed(9)).unsqueeze(0)
    for name, features in network.features(image, [conv_layers(arch)]).items():
        assert 0.2 < (features > 0).float().mean() < 0.8, name
        assert 0.1 * GAIN < features.std() < 10 * GAIN, name


def test_two_processes_that_are_each_number_one_download_the_same_file(tmp_path: Path) -> None:
    """As in two containers that share a cache."""
    both_began = threading.Barrier(2, timeout=30)

    class Slow(QuietFiles):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            outputfile.write(source.read(8))
            both_began.wait()
            super().copyfile(source, outputfile)

    (tmp_path / "w.pth").write_bytes(bytes(range(200)))
    with serving_folder(tmp_path, Slow) as url, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: weights.resolve(f"{url}/w.pth", "vgg16", "max"), range(2)))
    assert {each.sha256 for each in found} == {weights.file_sha256(tmp_path / "w.pth")}
