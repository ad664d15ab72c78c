"""Tables and pictures: functions from matrices to text, figures and JSON."""

from dendrite_zoo.report.curves import accuracy_by, accuracy_by_tasks, plot_accuracy
from dendrite_zoo.report.picture import plot_matrix
from dendrite_zoo.report.published import PUBLISHED
from dendrite_zoo.report.record import matrix_record, to_json, write_atomically, write_record
from dendrite_zoo.report.results import (
    hardware,
    merge_records,
    merge_rows,
    read_records,
    result_record,
    versions,
)
from dendrite_zoo.report.subnetworks import plot_subnetworks, subnetwork_record
from dendrite_zoo.report.tables import forgetting_table, matrix_table, results_table, sparsity_table, summary_table

__all__ = [
    "PUBLISHED",
    "accuracy_by",
    "accuracy_by_tasks",
    "forgetting_table",
    "hardware",
    "matrix_record",
    "matrix_table",
    "merge_records",
    "merge_rows",
    "plot_accuracy",
    "plot_matrix",
    "plot_subnetworks",
    "read_records",
    "result_record",
    "results_table",
    "sparsity_table",
    "subnetwork_record",
    "summary_table",
    "to_json",
    "versions",
    "write_atomically",
    "write_record",
]
