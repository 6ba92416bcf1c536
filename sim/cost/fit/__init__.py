"""From operator measurements to the fitted profiles in `profiles/fitted/`: ``python -m sim.cost.fit DATA_FOLDER [STACK …]``."""
