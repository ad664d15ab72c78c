"""Tasks as LightningDataModules, one after another or all at once, and the data that they are made of."""

from dendrite_zoo.streams.benchmark import benchmark_stream
from dendrite_zoo.streams.demonstrations import DemonstrationMixture, DemonstrationSequence
from dendrite_zoo.streams.loader import TaskLoader
from dendrite_zoo.streams.online import OnlineTasks, Round
from dendrite_zoo.streams.sampling import permutation, rotation_angle
from dendrite_zoo.streams.sources import Source, load_source
from dendrite_zoo.streams.stream import TaskStream
from dendrite_zoo.streams.tasks import PermutedTasks, RotatedTasks, SplitTasks

__all__ = [
    "DemonstrationMixture",
    "DemonstrationSequence",
    "OnlineTasks",
    "PermutedTasks",
    "RotatedTasks",
    "Round",
    "Source",
    "SplitTasks",
    "TaskLoader",
    "TaskStream",
    "benchmark_stream",
    "load_source",
    "permutation",
    "rotation_angle",
]
