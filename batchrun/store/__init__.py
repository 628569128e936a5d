"""The run directory: the one room that opens files in it."""

from batchrun.store.files import StoreError, read_records
from batchrun.store.rundir import LockedError, RunDirectory

__all__ = ["LockedError", "RunDirectory", "StoreError", "read_records"]
