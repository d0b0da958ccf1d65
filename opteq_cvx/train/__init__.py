"""A small trainer over Lightning Fabric: data, loop, metrics, checkpoints, progress."""

from opteq_cvx.train.classifier import Classifier
from opteq_cvx.train.data import Data, Split, load_data
from opteq_cvx.train.loop import Run, train
from opteq_cvx.train.metrics import read_metrics
from opteq_cvx.train.options import Cosine, DeviceOptions, OneCycle, Schedule, TrainOptions

__all__ = [
    "Classifier",
    "Cosine",
    "Data",
    "DeviceOptions",
    "OneCycle",
    "Run",
    "Schedule",
    "Split",
    "TrainOptions",
    "load_data",
    "read_metrics",
    "train",
]
