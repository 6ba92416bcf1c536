"""What the study ``plan`` is made of: bounds without simulation, the search of a candidate's size, the confirmation of finalists.

Candidates are pruned by what cannot be deployed and by an analytic bound (`bound`), searched cheapest first with short runs (`candidate`),
and only those that may still be the best are confirmed with replications (`finals`). Waves have a fixed size, so the answer does not
depend on the number of processes.
"""
