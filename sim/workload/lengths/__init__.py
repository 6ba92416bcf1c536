"""Length distributions, one registered class per file."""
