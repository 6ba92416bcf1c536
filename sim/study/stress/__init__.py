"""What the study ``stress`` is made of: the curve of load against latency (`curve`), and how a fleet takes a spike (`recovery`)."""
