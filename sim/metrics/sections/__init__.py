"""Sections of the summary that stand by themselves: one file each with one registered class.

```python
@registry.register("section")
@dataclass(frozen=True)
class Retries(Extra):
    '''What clients did when they got no answer.'''

    name = "retries"

    attempts: int
    given_up: int

    @classmethod
    def of(cls, facts: Facts) -> Retries | None:
        found = facts.record.stations.get("retries")
        return None if found is None else cls(**found)
```

`sim.metrics.record.RunRecord.stations` has what the stations of the run left for it (`sim.fleet.station.Station.leaves`).
"""
