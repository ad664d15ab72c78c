"""Where a context comes from: a task id, or the mean input of a task."""

from dendrite_zoo.contexts.base import TaskContext
from dendrite_zoo.contexts.one_hot import OneHotContext
from dendrite_zoo.contexts.prototype import PrototypeContext, nearest_prototype

__all__ = ["OneHotContext", "PrototypeContext", "TaskContext", "nearest_prototype"]
