"""Tables and pictures: functions from matrices to text, figures and JSON."""

from dendrite_zoo.report.curves import accuracy_by, accuracy_by_tasks, plot_accuracy
from dendrite_zoo.report.matrix_plot import plot_matrix
from dendrite_zoo.report.matrix_record import matrix_record, write_record
from dendrite_zoo.report.published import PUBLISHED
from dendrite_zoo.report.subnetworks import plot_subnetworks, subnetwork_record
from dendrite_zoo.report.tables import forgetting_table, matrix_table, results_table, sparsity_table, summary_table

__all__ = [
    "PUBLISHED",
    "accuracy_by",
    "accuracy_by_tasks",
    "forgetting_table",
    "matrix_record",
    "matrix_table",
    "plot_accuracy",
    "plot_matrix",
    "plot_subnetworks",
    "results_table",
    "sparsity_table",
    "subnetwork_record",
    "summary_table",
    "write_record",
]
