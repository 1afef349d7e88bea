"""Weights by name: torchvision's ImageNet sets, a file, a URL, or random ones.

Files are in torchvision's format, a state dict with `features.N.weight` and `features.N.bias`. They are read with
`weights_only=True`, so nothing in them can run.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from nst_batch.errors import WeightsError, network_cause, network_errors
from nst_batch.inputs import fetching
from nst_batch.vocabulary import NORMALIZED_AFTER, Normalization, Pooling, kernel_side, layer_names

if TYPE_CHECKING:
    from torch import Tensor

WAYS_OUT = "give a state dict that you have with --weights FILE or URL, or use --weights random:0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Weights that are at hand."""

    label: str
    """As the study names them."""
    sha256: str
    """Of the file; for random weights, of what they are a function of (`records.ALGORITHM` covers the rest)."""
    normalization: Normalization
    """What their network expects to be fed."""
    path: Path | None
    """None for random weights."""


def resolve(
    label: str, arch: str, pooling: Pooling, normalization: Normalization = "auto", *, download: bool = True
) -> Weights:
    """Finds the weights, and downloads them if they are not here yet, with a progress bar on stderr.

    Raises:
        WeightsError: They cannot be downloaded, or must not be, or there is no such file; the message names the
            ways out.
    """
    if label.startswith("random:"):
        recipe = f"lsuv {arch} {pooling} {label}"
        digest, natural, path = hashlib.sha256(recipe.encode()).hexdigest(), "imagenet", None
    else:
        path = _file(label, arch, download)
        digest, natural = file_sha256(path), "caffe" if label == "imagenet" else "imagenet"
    chosen = natural if normalization == "auto" else normalization
    return Weights(label=label, sha256=digest, normalization=chosen, path=path)  # type: ignore[arg-type]


def load(weights: Weights, arch: str, pooling: Pooling) -> dict[str, Tensor]:
    """Every convolution's `blockB_convK.weight` (OxIxKxK) and `.bias` (O), float32, on the CPU.

    Raises:
        WeightsError: The file is not a state dict of `arch`; the message names the first keys and shapes that
            differ.
    """
    if weights.path is None:
        from nst_batch.transfer.random_weights import random_weights

        return random_weights(arch, int(weights.label.split(":")[1]), pooling)
    return _named(_state_dict(weights.path), arch, weights.path)


def file_sha256(path: Path) -> str:
    """Of a file of any size."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}; {WAYS_OUT}") from error


def _file(label: str, arch: str, download: bool) -> Path:
    import torch

    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    if label in ("imagenet", "imagenet_v1"):
        url = _torchvision_url(label, arch)
        return _downloaded(url, checkpoints / Path(urlparse(url).path).name, download)
    if "://" in label:
        digest = hashlib.sha256(label.encode()).hexdigest()[:16]
        return _downloaded(label, checkpoints / f"{digest}-{Path(urlparse(label).path).name}", download)
    path = Path(label)
    if not path.is_file():
        raise WeightsError(
            f"weights {label!r}: expected imagenet, imagenet_v1, random:SEED, a URL or a file, and there is no "
            f"such file; {WAYS_OUT}"
        )
    return path


def _torchvision_url(label: str, arch: str) -> str:
    from torchvision.models import get_model_weights

    try:
        return str(get_model_weights(arch)["IMAGENET1K_FEATURES" if label == "imagenet" else "IMAGENET1K_V1"].url)
    except (KeyError, ValueError):
        raise WeightsError(
            f"torchvision has no weights {label!r} of {arch}: it has imagenet of vgg16, and imagenet_v1 of vgg11, "
            "vgg13, vgg16 and vgg19; use one of these, --weights random:0, or a state dict of your own"
        ) from None


def _downloaded(url: str, path: Path, download: bool) -> Path:
    """The file of `url` at `path`, whose name is checked where it ends in the first digits of its SHA-256."""
    if path.is_file():
        _check_digest(path, path.name, f"{path} is damaged; remove it, and it is downloaded again")
        return path
    if not download:
        raise WeightsError(f"weights are not on this machine yet; a run downloads them from {url}")
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetching.fetch(url, partial)
        _check_digest(partial, path.name, f"what came from {url} is damaged; try again")
        partial.replace(path)
    except network_errors(ImportError, ValueError) as error:
        cause = network_cause(error)
        raise WeightsError(
            f"weights cannot be downloaded from {url}: {str(cause) or type(cause).__name__}; download them "
            f"elsewhere and put them at {path}, or {WAYS_OUT}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _check_digest(path: Path, name: str, damaged: str) -> None:
    """torchvision names its files `vgg16-397923af.pth`: the last word begins the SHA-256 of the content."""
    match = re.search(r"-([0-9a-f]{8})\.pth$", name)
    if match and not (found := file_sha256(path)).startswith(match[1]):
        digests = f"expected a SHA-256 that begins with {match[1]}, as in its name, found {found[:8]}"
        raise WeightsError(f"{damaged}, or {WAYS_OUT}: {digests}")


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: expected a PyTorch state dict of plain tensors: {first_line}") from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: expected a state dict, found {type(state).__name__}")
    return state


def _named(state: Mapping[str, Tensor], arch: str, path: Path) -> dict[str, Tensor]:
    import torch

    from nst_batch.transfer.vgg import conv_shapes

    named: dict[str, Tensor] = {}
    problems, positions = [], _positions(arch)
    for name, (out_channels, in_channels) in conv_shapes(arch).items():
        side = kernel_side(name, arch)
        for kind, shape in (("weight", (out_channels, in_channels, side, side)), ("bias", (out_channels,))):
            key = f"features.{positions[name]}.{kind}"
            tensor = state.get(key)
            if not isinstance(tensor, torch.Tensor):
                problems.append(f"{key} ({name}) is missing")
            elif tuple(tensor.shape) != shape:
                problems.append(f"{key} ({name}) has shape {tuple(tensor.shape)}, expected {shape}")
            else:
                named[f"{name}.{kind}"] = tensor.float()
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(
            f"{path}: not weights of torchvision's {arch}: {'; '.join(problems[:3])}{more}; its keys begin with "
            f"{', '.join(sorted(map(str, state))[:3]) or 'nothing'}"
        )
    return named


def _positions(arch: str) -> dict[str, int]:
    """Where each layer begins in torchvision's `features`, in which ReLUs and normalisations take places too."""
    positions, at = {}, 0
    for name in layer_names(arch):
        positions[name] = at
        at += (1 if name.endswith("pool") else 2) + (name == NORMALIZED_AFTER.get(arch))
    return positions
