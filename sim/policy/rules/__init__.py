"""Rules of routers in compiled code (`sim.rules`), one file per rule; the router says in `rule` which one is its own."""
