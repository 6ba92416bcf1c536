"""How a result is shown: a terminal screen, one HTML file, and the formats of other tools. Importing it loads nothing.

`terminal.py` and `html.py` show one run, `compare.py` several side by side, `capacity.py` a search, `exports.py` the rest.
All of them take their words from `words.py` and their definitions from `sim.metrics.definitions`.
"""
