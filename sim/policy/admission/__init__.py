"""Who may go on to the replicas, in which order, and who is refused: one policy a file."""
