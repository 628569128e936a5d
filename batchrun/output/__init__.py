"""Text to JSON value: where the answer is in the text, and whether it obeys the schema."""

from batchrun.output.judge import Judge, Verdict
from batchrun.output.schema import Schema

__all__ = ["Judge", "Schema", "Verdict"]
