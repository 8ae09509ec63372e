"""Measurements: what the bus costs, how well voices are cloned. Figures and commands: README.md."""
