"""What the user asks for: one frozen model per section of a scenario file, and the way from YAML to them.

`load` reads, `resolve` fills in the defaults of engine, router and traffic, `to_yaml` writes the whole back. No behaviour lives here.
"""

from sim.config.deployment import Deployment, Engine, Pool, Router
from sim.config.goals import Expectation, Record, Slo
from sim.config.load import built_in, load, loads, to_yaml
from sim.config.model import Model
from sim.config.plugins import resolve, settings
from sim.config.scenario import Scenario
from sim.config.schema import schema
from sim.config.traffic import Arrival, ClosedLoop, Lengths, Synthetic, Trace, Traffic

__all__ = [
    "Arrival",
    "ClosedLoop",
    "Deployment",
    "Engine",
    "Expectation",
    "Lengths",
    "Model",
    "Pool",
    "Record",
    "Router",
    "Scenario",
    "Slo",
    "Synthetic",
    "Trace",
    "Traffic",
    "built_in",
    "load",
    "loads",
    "resolve",
    "schema",
    "settings",
    "to_yaml",
]
