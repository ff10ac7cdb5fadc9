"""Recoveries: their journal in the stores, the clocks of their objectives, their report."""
