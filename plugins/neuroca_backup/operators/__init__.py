"""Airflow operators: each places one service call as a task."""
