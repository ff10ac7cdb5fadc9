"""Servers that speak the published API of a service that cannot be run here."""
