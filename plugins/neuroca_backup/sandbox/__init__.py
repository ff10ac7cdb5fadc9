"""Throwaway real servers for the demo, the tests, restore tests and drills."""
