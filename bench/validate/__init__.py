"""Validation: recorded runs of real engines, predicted by the simulator and compared with it."""
