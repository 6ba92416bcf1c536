"""Llumnix: load metrics, dispatch, rescheduling. Pure decisions on read-only snapshots; routers and fleet apply them.

Two generations. ``v0_*`` follow the Python manager of AlibabaPAI/llumnix at 24220fb8 (``llumnix/load_computation.py``,
``global_scheduler/dispatch_policy.py``, ``migration_filter.py``, ``migration_policy.py``, ``llumlet/local_migration_scheduler.py``).
``v1_*`` follow the Go scheduler of llumnix-project/llumnix at 8a693b46 (``pkg/scheduler/policy``, ``pkg/cms``, ``pkg/consts``).
"""
