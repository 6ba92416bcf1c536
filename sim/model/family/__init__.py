"""One file per group of model families; see `sim.model.families`."""
