"""Routers, one per file; see `sim.policy.router`."""
