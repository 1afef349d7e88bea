"""The layers of the VGG networks by name: no tensors, so that studies can be checked without torch.

A layer is named as in the study that this project began with: `block4_conv1` is the first convolution of the
fourth block *after* its ReLU, `block4_pool` the pooling that ends the block. The numbers of convolutions per
block are those of table 1 in Simonyan and Zisserman, "Very deep convolutional networks for
large-scale image recognition" (ICLR 2015): vgg11 is its column A, vgg11_lrn A-LRN, vgg13 B, vgg16_c C, vgg16 D and
vgg19 E.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from nst_batch.errors import LayerError

Arch = Literal["vgg11", "vgg11_lrn", "vgg13", "vgg16_c", "vgg16", "vgg19"]
Color = Literal["style", "luminance", "histogram"]
Fit = Literal["crop", "stretch", "keep"]
Init = Literal["content", "style", "noise"]
Loss = Literal["sum", "mean"]
Normalization = Literal["auto", "imagenet", "caffe"]
OptimizerName = Literal["lbfgs", "adam"]
Pooling = Literal["max", "average"]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]
PairPrecision = Literal["float32", "bfloat16"]
Pyramid = Literal["auto", "off"]
Status = Literal["ok", "failed", "diverged"]
Encoding = Literal["png", "jpeg", "webp", "tiff"]
RankBy = Literal["score", "content", "style", "area", "kept_at_0.3", "kept_at_0.5", "kept_at_0.7"]
ExportKind = Literal["hf", "csv", "long", "images"]

LIST_SUFFIXES = (".csv", ".jsonl", ".parquet")
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")
PROTOCOLS = ("http", "https", *OBJECT_STORES, "hdfs", "webhdfs", "hf", "file", "local", "memory")
"""Of URLs that are read and written. fsspec knows more, some of which run code or reach into other files."""

CONVS_PER_BLOCK: dict[str, tuple[int, ...]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg11_lrn": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16_c": (2, 2, 3, 3, 3),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
WHOLE_SIZE = 1024
"""Pixels of the longer edge up to which images are optimised at once."""
_LEAST_SIDE = 64  # pixels: of less, nothing is left at the deepest layers
MAX_REGIONS = 8
"""Of a picture; their labels are the numbers below."""
LBFGS_HISTORY = 60
"""Steps that L-BFGS remembers."""
CHANNELS = (64, 128, 256, 512, 512)
NORMALIZED_AFTER = {"vgg11_lrn": "block1_conv1"}
"""The layer that is followed by a local response normalisation, which the layers behind it see."""

_SPELLING = re.compile(
    r"""(?:block[_ -]?(?P<block>\d)[_ -]?(?P<kind>conv|cov|relu|pool)[_ -]?(?P<index>\d)?  # block4_conv1
      | (?:conv|cov|relu)[_ -]?(?P<block2>\d)[_ -](?P<index2>\d)  # conv4_1, relu4_1
      | pool[_ -]?(?P<pool>\d))$""",
    re.VERBOSE | re.IGNORECASE,
)


def conv_layers(arch: str) -> tuple[str, ...]:
    """The convolutions of `arch` in order, 13 for vgg16."""
    return tuple(name for name in layer_names(arch) if "_conv" in name)


def layer_names(arch: str) -> tuple[str, ...]:
    """Every layer of `arch` in the order of computation."""
    names: list[str] = []
    for block, count in enumerate(CONVS_PER_BLOCK[arch], 1):
        names += [f"block{block}_conv{index}" for index in range(1, count + 1)]
        names.append(f"block{block}_pool")
    return tuple(names)


def canonical(name: str, arch: str) -> str:
    """The canonical name of a layer in any of the field's spellings.

    Accepts `block4_conv2`, `conv4_2`, `relu4_2`, `pool4`, in any case, and the misspelling `block4_cov2` that
    circulates with the source study.

    Raises:
        LayerError: No layer of `arch` is meant; the message lists near names.
    """
    names = layer_names(arch)
    match = _SPELLING.match(name.strip())
    if match:
        found = match.groupdict()
        block = found["block"] or found["block2"] or found["pool"]
        pooled = found["pool"] or (found["kind"] or "").lower() == "pool"
        index = found["index"] or found["index2"]
        spelled = f"block{block}_pool" if pooled else f"block{block}_conv{index}"
        if spelled in names and not (pooled and index):
            return spelled
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.85)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the layers are {names[0]} … {names[-1]}"
    raise LayerError(f"{name!r} is not a layer of {arch}; {hint}")


def kernel_side(name: str, arch: str) -> int:
    """Pixels of the edge of a convolution's kernel: 1 for the third ones of blocks 3 to 5 of column C, else 3."""
    return 1 if arch == "vgg16_c" and name.endswith("conv3") else 3


def halvings(name: str) -> int:
    """How many poolings a layer's output has been through."""
    return int(name[5]) - (not name.endswith("pool"))


def layer_shape(name: str, height: int, width: int) -> tuple[int, int, int]:
    """Channels, height and width of a layer's output for an image of `height` × `width` pixels.

    Raises:
        LayerError: The image is so small that nothing of it is left at this layer.
    """
    block, times = int(name[5]), halvings(name)
    rows, columns = height >> times, width >> times
    if not rows or not columns:
        smallest = 1 << times
        raise LayerError(
            f"{name} needs an image of at least {smallest}×{smallest} pixels, this one is {width}×{height}; "
            f"choose a larger size or a shallower layer"
        )
    return CHANNELS[block - 1], rows, columns


def block_and_index(name: str) -> tuple[int, int]:
    """Sorts layers by depth: the block, and the position in it (a pooling comes last)."""
    return int(name[5]), 99 if name.endswith("pool") else int(name[11:])


def scaled_size(size: int, scale: float) -> int:
    """Pixels of a style picture that is `scale` times as large as `size`, 1 at least."""
    return max(1, round(size * scale))


def url_path(name: str) -> str:
    """The path in a URL; a local name is one."""
    return urlsplit(name).path if "://" in name else name


def is_list_file(name: str) -> bool:
    """Whether `name` is a list of pictures rather than a picture or a word."""
    return url_path(name).lower().endswith(LIST_SUFFIXES)


def url_mistake(url: str) -> str | None:
    """Why a URL is neither read nor written; None where it may be.

    Chains such as `simplecache::s3://…` and `zip://a::http://…` would reach every protocol that fsspec has.
    """
    protocol = url.partition("://")[0].lower()
    if "::" in url:
        return "chains of URLs with '::' are not followed; name the file itself"
    if protocol not in PROTOCOLS:
        return f"expected one of {', '.join(PROTOCOLS)}, found the protocol {protocol!r}"
    return None


def is_weights_file(name: str) -> bool:
    """Whether `name` is a path or URL of weights rather than a word such as imagenet."""
    return not name.startswith("random:") and any(mark in name for mark in "/\\.")


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`."""
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def num_stages(height: int, width: int) -> int:
    """How often an image is halved before it is optimised: until neither edge is above `WHOLE_SIZE`."""
    count = 0
    while max(height, width) >> count > WHOLE_SIZE and min(height, width) >> count >= 2 * _LEAST_SIDE:
        count += 1
    return count


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLayout:
    """How a problem is held while it is solved. Strips change the rounding, other pairs the path."""

    tile: int = 0
    """Rows of a strip (`transfer.tiles`); 0: the whole image at once."""
    num_pairs: int = LBFGS_HISTORY
    """Of L-BFGS."""
    pair_precision: PairPrecision = "float32"


WHOLE_IMAGE = MemoryLayout()
"""What is chosen wherever it fits."""
