"""A job's schedule as lines for cron and units for systemd: text is made, nothing is installed."""

from batchrun.scheduling.crontab import crontab
from batchrun.scheduling.plan import Plan, plan
from batchrun.scheduling.units import service, timer

__all__ = ["Plan", "crontab", "plan", "service", "timer"]
