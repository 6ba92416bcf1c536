"""What a run is worth: definitions, percentiles, SLO attainment and goodput, bottlenecks, result frames.

Read `definitions.py` first, then `record.py` (what comes in) and `result.py` (what goes out). Importing it loads nothing.
"""
