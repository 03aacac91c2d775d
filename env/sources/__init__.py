"""Timeline sources: each turns a foreign recording into events, and never guesses a time zone silently."""

from env.sources.clock import EPOCHS
from env.sources.columns import HasUsers
from env.sources.registry import SOURCES, load_timelines
from env.sources.report import ImportReport, Loaded

__all__ = ["EPOCHS", "SOURCES", "HasUsers", "ImportReport", "Loaded", "load_timelines"]
