"""Result records: what a run measured, and everything that is needed to measure it again."""

from dendrite_zoo.records.files import *
from dendrite_zoo.records.merge import *
from dendrite_zoo.records.metrics_file import *
from dendrite_zoo.records.record import *
