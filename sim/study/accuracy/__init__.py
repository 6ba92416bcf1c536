"""Accuracy: operating points of real systems simulated, and how far the predictions are off.

>>> from sim.study.accuracy import accuracy
>>> report = accuracy(["points/"])                      # doctest: +SKIP
>>> report.rows(by="engine")                            # doctest: +SKIP
"""

from sim.study.accuracy.errors import GROUPS, TARGETS, Outcome, Row, title
from sim.study.accuracy.point import Point
from sim.study.accuracy.reading import read_points
from sim.study.accuracy.report import AccuracyReport, accuracy

__all__ = ["GROUPS", "TARGETS", "AccuracyReport", "Outcome", "Point", "Row", "accuracy", "read_points", "title"]
