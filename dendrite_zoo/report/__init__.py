"""Tables and pictures: functions from matrices to text, figures and JSON."""

from dendrite_zoo.report.animation import *
from dendrite_zoo.report.curves import *
from dendrite_zoo.report.matrix_plot import *
from dendrite_zoo.report.matrix_record import *
from dendrite_zoo.report.page import *
from dendrite_zoo.report.published import *
from dendrite_zoo.report.subnetworks import *
from dendrite_zoo.report.success_plot import *
from dendrite_zoo.report.tables import *
