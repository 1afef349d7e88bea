"""The mathematics: VGG features, losses, optimisers, and the engine that runs a batch. Knows only torch.

The door is `solve`:

    network = Vgg("vgg16", random_weights("vgg16", 0, "average"), pooling="average")
    [solution] = solve(Targets(network), [problem], SolveOptions(steps=60))
"""

from nst_batch.transfer.distances import layer_distances, region_scores
from nst_batch.transfer.engine import Solution, SolveOptions, minimizer, solve, step
from nst_batch.transfer.memory import gpu_bytes, keep_freed_memory
from nst_batch.transfer.objective import Evaluation, Objective
from nst_batch.transfer.precision import build_targets, precision_used, targets_under
from nst_batch.transfer.problem import Problem, TargetImage, initial_image
from nst_batch.transfer.random_weights import random_weights
from nst_batch.transfer.regions import Labels, Regions, regions_mistake
from nst_batch.transfer.targets import Targets
from nst_batch.transfer.vgg import Vgg

__all__ = [
    "Evaluation",
    "Labels",
    "Objective",
    "Problem",
    "Regions",
    "Solution",
    "SolveOptions",
    "TargetImage",
    "Targets",
    "Vgg",
    "build_targets",
    "gpu_bytes",
    "initial_image",
    "keep_freed_memory",
    "layer_distances",
    "minimizer",
    "precision_used",
    "random_weights",
    "region_scores",
    "regions_mistake",
    "solve",
    "step",
    "targets_under",
]
