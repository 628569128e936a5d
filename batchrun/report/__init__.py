"""One self-contained HTML page about a run directory: `make_report`."""

from batchrun.report.page import default_language, make_report, save_report

__all__ = ["default_language", "make_report", "save_report"]
