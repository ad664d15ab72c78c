"""Lightning callbacks for models that learn one task after another, ours or a stranger's."""

from dendrite_zoo.callbacks.forgetting import ForgettingLogger

__all__ = ["ForgettingLogger"]
