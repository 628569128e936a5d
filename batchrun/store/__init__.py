"""The run directory: the one room that opens files in it."""

from batchrun.store.files import StoreError, read_records
from batchrun.store.lock import LockedError
from batchrun.store.pages import PACE, Pages
from batchrun.store.rundir import RunDirectory, read_manifest

__all__ = ["PACE", "LockedError", "Pages", "RunDirectory", "StoreError", "read_manifest", "read_records"]
