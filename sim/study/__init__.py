"""Many runs: capacity, compare, accuracy, conformance."""
