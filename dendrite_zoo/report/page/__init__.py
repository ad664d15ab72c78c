"""A page to look at a run: one file of HTML that works without a network."""

from dendrite_zoo.report.page.html import *
from dendrite_zoo.report.page.run import *
