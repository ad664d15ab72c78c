"""Sequences of tasks as LightningDataModules, their data, and where one task ends."""

from dendrite_zoo.streams.boundary import TaskBoundary, current_task, resume_missed_validation

__all__ = ["TaskBoundary", "current_task", "resume_missed_validation"]
