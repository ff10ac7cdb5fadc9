"""Airflow hooks: Airflow connections become our endpoints and runtime."""
