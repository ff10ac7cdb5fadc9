"""Airflow's sensors: tasks that wait for something."""
