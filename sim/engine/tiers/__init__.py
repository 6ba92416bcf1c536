"""KV cache beyond the accelerator's memory: host memory, disks and remote stores that keep blocks which engines would otherwise lose.

A *tier* (`tier.py`) is one medium: it keeps whole blocks by the hash of all tokens up to their end, evicts the one used least recently that no
transfer touches, and has a lane in each direction on which transfers queue. What goes in, what is asked for, what waits for a transfer and
what overlaps with it is the engine's business and lies beside its scheduler. `plan.py`: what settings make of the media of a machine.
`counts.py`: what is counted. An engine without tiers compiles nothing of this.
"""
