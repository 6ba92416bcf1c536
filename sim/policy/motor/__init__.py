"""MindIE Motor: its coordinator's schedulers. Pure decisions.

From Ascend/MindIE-Motor 5dfb024e (2026-03-31), ``mindie_motor/src``: `digs` (``coordinator/digs_scheduler``: the scheduler of
disaggregated deployments), `load` (``meta_resource.cpp``: what an instance's load is), `default` (``coordinator/scheduler/default_scheduler``:
round robin and cache affinity of single nodes).
"""
