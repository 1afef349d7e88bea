"""The mathematics: VGG features, losses, optimisers, and the engine that runs a batch. Knows only torch.

The door is `solve`:

    network = Vgg("vgg16", random_weights("vgg16", 0, "average"), pooling="average")
    [solution] = solve(Targets(network), [problem], Options(steps=60))
"""

from nst_batch.transfer.distances import layer_distances
from nst_batch.transfer.engine import Options, Solution, solve
from nst_batch.transfer.memory import keep_freed_memory, part_size, predicted_bytes
from nst_batch.transfer.objective import Objective, Picture, Problem, Targets
from nst_batch.transfer.random_weights import random_weights
from nst_batch.transfer.vgg import Vgg, build_network

__all__ = [
    "Objective",
    "Options",
    "Picture",
    "Problem",
    "Solution",
    "Targets",
    "Vgg",
    "build_network",
    "keep_freed_memory",
    "layer_distances",
    "part_size",
    "predicted_bytes",
    "random_weights",
    "solve",
]
