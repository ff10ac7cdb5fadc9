"""Airflow notifications: who is told when a run fails."""
