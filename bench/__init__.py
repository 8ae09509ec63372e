"""Measurements: what the bus costs and how well voices are cloned. Figures and commands stand in README.md."""
