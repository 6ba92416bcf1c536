"""What the real gateways keep and compute, apart from the simulator: prefix trees, hash rings, costs and scores.

Every class and function here is fed by a router of `sim.policy.routing` in a run, and by recordings of the real code in
`sim.study.conformance.router`.
"""
