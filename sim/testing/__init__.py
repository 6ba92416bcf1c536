"""Laws that a plug-in keeps, as classes for pytest to inherit from: the package's own engines, routers, readers and scalers pass them too.

In a test file of your own::

    from sim.testing import RouterLaws

    class TestMine(RouterLaws):
        router = "path/to/mine.py:Mine"
        settings = {"threshold": 3}

Each class says in its docstring what it checks and what it wants to be told. They need pytest (``pip install servesim[test]``), but only when they run.
"""

from sim.testing.admission import AdmissionLaws
from sim.testing.clients import ClientLaws
from sim.testing.faults import FaultLaws
from sim.testing.routers import RouterLaws
from sim.testing.scalers import ScalerLaws
from sim.testing.schedulers import SchedulerLaws
from sim.testing.traces import TraceLaws

__all__ = ["AdmissionLaws", "ClientLaws", "FaultLaws", "RouterLaws", "ScalerLaws", "SchedulerLaws", "TraceLaws"]
