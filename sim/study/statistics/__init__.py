"""How sure a figure is: one idea per file. Arrays of one run are in order of arrival; a run's own requests depend on each other."""

from sim.study.statistics.interval import Interval

__all__ = ["Interval"]
