"""The HTTP edge: one more client of the bus, for those who speak HTTP."""
