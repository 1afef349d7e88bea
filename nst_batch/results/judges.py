"""Judges of the finished pictures that took no part in making them: another network, or no network at all.

The judge `pixels` knows no features. Content is kept as far as the luminance keeps its structure: 1 − multi-scale
SSIM (Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003).
Style is taken as far as the 7×7 colour patches at each level of a Laplacian pyramid are distributed as the style's:
their sliced Wasserstein distance (after Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs", ICLR 2018,
without the normalisation of colours, which belong to a style). Both are divided by the same two baselines as the
transfer score: the style picture's own distance from the content, and the content's from the style.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import ndimage
from skimage import transform

from nst_batch.cluster.pictures import PictureReader, Posed
from nst_batch.errors import ImageError, QueryError
from nst_batch.inputs import images, weights
from nst_batch.inputs.images import Pixels
from nst_batch.records import Configuration, Trial
from nst_batch.results.labels import SCORES
from nst_batch.results.pictures import finished_picture
from nst_batch.results.statistics import Floats
from nst_batch.scores import Scores, share_reached, transfer_scores
from nst_batch.store.run_directory import RunDirectory
from nst_batch.transfer import Problem, TargetImage, Targets, build_targets, layer_distances
from nst_batch.transfer.problem import resized
from nst_batch.vocabulary import Normalization

PIXELS = "pixels"

_FILES_AT_ONCE, _BATCH = 4, 16
_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SSIM_RADIUS = 5
_PATCH, _SAMPLES, _DIRECTIONS = 7, 4096, 64
_SMALLEST_LEVEL = 16


def judged(run: RunDirectory, trials: pa.Table, judge: str, *, fetch: bool = False) -> dict[str, Floats]:
    """`transfer_score`, `content_kept` and `style_taken` of each trial as a judge sees them; NaN where it cannot.

    Args:
        trials: With `trial_index`, `status` and `image_path`.
        judge: `pixels`, or weights: random:SEED, imagenet, imagenet_v1, a file; `,caffe` behind them says that
            their network is fed 0 to 255 minus the mean.
        fetch: Whether inputs that the plan names by a URL may be fetched: a run may come from anybody.

    Raises:
        QueryError: There is no such judge, or an input may not be fetched.
        WeightsError: The judge's weights cannot be had.
    """
    found = {name: np.full(trials.num_rows, np.nan) for name in SCORES}
    row_of = np.full(run.num_trials, -1)
    ok = pc.equal(trials["status"], "ok").to_numpy()
    row_of[trials["trial_index"].to_numpy()[ok]] = np.flatnonzero(ok)
    score = pixel_scores if judge == PIXELS else _network_scorer(judge)
    with ThreadPoolExecutor(_FILES_AT_ONCE, "nst-batch judge") as pool:
        for posed in _problems(PictureReader(pool), run.iter_plan(skip=row_of < 0), fetch):
            row = row_of[posed.trial.trial_index]
            try:
                image = images.to_array(finished_picture(run, trials["image_path"][row].as_py()))
            except ImageError:
                continue
            if image.shape[1:] != (posed.trial.height, posed.trial.width):
                continue
            scores = score(image, posed.problem, posed.trial.configuration)
            for name, values in found.items():
                value = getattr(scores, name)
                values[row] = np.nan if value is None else value
    return found


def _problems(reader: PictureReader, trials: Iterator[Trial], fetch: bool) -> Iterator[Posed]:
    """Each trial whose pictures are still what they were. They are judged whole: no mask is read."""
    unmasked = map(_without_masks, trials)
    while batch := list(islice(unmasked, _BATCH)):
        inputs = (picture for trial in batch for picture in (trial.content, *trial.styles) if picture)
        remote = next((picture.uri for picture in inputs if "://" in picture.uri), None)
        if remote and not fetch:
            raise QueryError(f"{remote}: a judge looks at the inputs, and this one is not fetched without --fetch")
        yield from (posed for posed in reader.problems(batch) if isinstance(posed, Posed))


def _without_masks(trial: Trial) -> Trial:
    content = trial.content and replace(trial.content, mask=None)
    return replace(trial, content=content, styles=tuple(replace(style, mask=None) for style in trial.styles))


# A network


def _network_scorer(judge: str) -> Callable[[Pixels, Problem, Configuration], Scores]:
    label, _, normalization = judge.partition(",")
    choices: dict[str, Normalization] = {each: each for each in get_args(Normalization)} | {"": "auto"}
    if normalization not in choices:
        expected = "expected ,caffe or ,imagenet behind the weights"
        raise QueryError(f"judge {judge!r}: {expected}, found {normalization!r}")

    @functools.lru_cache(maxsize=2)
    def targets(arch: Any, pooling: Any) -> Targets:
        resolved = weights.resolve(label, arch, pooling, choices[normalization])
        return build_targets(
            arch,
            weights.load(resolved, arch, pooling),
            pooling=pooling,
            normalization=resolved.normalization,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            precision="float32",
        )

    def score(image: Pixels, problem: Problem, configuration: Configuration) -> Scores:
        chosen = targets(configuration.arch, configuration.pooling)
        pixels = torch.from_numpy(image).to(chosen.network.device)
        return transfer_scores(layer_distances(chosen, pixels, problem))

    return score


# No network


def pixel_scores(image: Pixels, problem: Problem, _: Configuration | None = None) -> Scores:
    """The scores of an image by its structure and its colour patches; see the head of this module."""
    if problem.content is None or not problem.styles:
        return Scores(score_reason="no content or no style picture")
    content = _luminance(problem.content.pixels.numpy())
    styles = [_luminance(resized(style.pixels, *content.shape).numpy()) for style in problem.styles]
    unlike, *others = (1 - multi_scale_similarity(each, content) for each in (_luminance(image), *styles))
    sides = [side for each in (problem.content, *problem.styles) for side in each.pixels.shape[1:]]
    levels = 1 + max(0, int(np.log2(min(sides) / _SMALLEST_LEVEL)))
    style = _blended([_patches_of(style, levels) for style in problem.styles])
    own, unchanged = _patches(image, levels), _patches_of(problem.content, levels)
    distances = [
        (_squared_distance(a, b), _squared_distance(c, b)) for a, b, c in zip(own, style, unchanged, strict=True)
    ]
    return Scores.of(share_reached([(unlike, min(others))]), share_reached(distances))


def multi_scale_similarity(one: Floats, other: Floats) -> float:
    """Multi-scale SSIM of two luminance pictures (HxW in [0, 1]), 0 to 1; small ones on fewer scales."""
    scales = max(1, min(len(_SSIM_WEIGHTS), int(np.log2(min(one.shape) / (2 * _SSIM_RADIUS + 1))) + 1))
    exponents = np.array(_SSIM_WEIGHTS[:scales]) / sum(_SSIM_WEIGHTS[:scales])
    product = 1.0
    for scale, exponent in enumerate(exponents):
        luminance, structure = _similarity(one, other)
        last = scale == scales - 1
        product *= max(0.0, luminance * structure if last else structure) ** exponent
        one, other = _halved(one), _halved(other)
    return float(product)


def _similarity(one: Floats, other: Floats) -> tuple[float, float]:
    """The means of SSIM's terms of luminance, and of contrast and structure, in Gaussian windows of 11×11."""
    blur = functools.partial(ndimage.gaussian_filter, sigma=1.5, radius=_SSIM_RADIUS)
    mean, other_mean = blur(one), blur(other)
    variance, other_variance = blur(one**2) - mean**2, blur(other**2) - other_mean**2
    covariance = blur(one * other) - mean * other_mean
    luminance = (2 * mean * other_mean + 0.01**2) / (mean**2 + other_mean**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance + other_variance + 0.03**2)
    return float(luminance.mean()), float(structure.mean())


def _halved(picture: Floats) -> Floats:
    rows, columns = (side // 2 * 2 for side in picture.shape)
    return np.asarray(picture[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)))


def _luminance(pixels: Pixels) -> Floats:
    """Rec. 601, as SSIM is used with."""
    return np.tensordot(np.array([0.299, 0.587, 0.114]), pixels.astype(np.float64), 1)


@functools.lru_cache(maxsize=64)
def _patches_of(picture: TargetImage, levels: int) -> list[Floats]:
    return _patches(picture.pixels.numpy(), levels)


def _patches(pixels: Pixels, levels: int) -> list[Floats]:
    """Of each level of the Laplacian pyramid: sampled patches projected on random directions, each sorted (SxD)."""
    directions = np.random.default_rng(0).normal(size=(3 * _PATCH**2, _DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    found = []
    for level in _laplacian(np.moveaxis(pixels.astype(np.float64), 0, -1), levels):
        windows = np.lib.stride_tricks.sliding_window_view(level, (_PATCH, _PATCH), axis=(0, 1))
        windows = windows.reshape(-1, 3 * _PATCH**2)
        chosen = np.random.default_rng(1).integers(len(windows), size=_SAMPLES)
        found.append(np.sort(windows[chosen] @ directions, axis=0))
    return found


def _laplacian(picture: Floats, levels: int) -> Iterator[Floats]:
    """Band-passed levels from fine to coarse; the last one is what is left."""
    reduce: Any = transform.pyramid_reduce  # neither is typed
    resize: Any = transform.resize
    for _ in range(levels - 1):
        smaller = reduce(picture, channel_axis=-1)
        yield picture - resize(smaller, picture.shape, order=1)
        picture = smaller
    yield picture


def _blended(styles: list[list[Floats]]) -> list[Floats]:
    """The patches of several styles together, as many as of one."""
    return [
        np.sort(np.concatenate(each), axis=0)[len(each) // 2 :: len(each)] for each in zip(*styles, strict=True)
    ]


def _squared_distance(one: Floats, other: Floats) -> float:
    """The squared sliced Wasserstein distance at one level."""
    return float(np.abs(one - other).mean() ** 2)
