"""The data boundary: finds personal data and secrets in what is about to leave, and can put placeholders for them."""

from batchrun.boundary.fields import Fields, texts
from batchrun.boundary.placeholders import Placeholders
from batchrun.boundary.scanner import DETECTORS, WORD, Finding, Hit, Scanner

__all__ = ["DETECTORS", "WORD", "Fields", "Finding", "Hit", "Placeholders", "Scanner", "texts"]
