"""Result records: what a run measured, and everything that is needed to measure it again."""

from dendrite_zoo.records.merge import merge_records, merge_seeds
from dendrite_zoo.records.record import ResultRecord, read_records, write_records

__all__ = ["ResultRecord", "merge_records", "merge_seeds", "read_records", "write_records"]
