"""The pace: who may send now, how many at a time, and what happens while the endpoint is down."""

from batchrun.pace.breaker import Record
from batchrun.pace.pacer import AUTO_MOST, PACE_CELLS, Found, Limits, Pacer, SharedPace, Stopping, Ticket, UsedUpError

__all__ = [
    "AUTO_MOST", "PACE_CELLS", "Found", "Limits", "Pacer", "Record", "SharedPace", "Stopping", "Ticket", "UsedUpError",
]  # fmt: skip
