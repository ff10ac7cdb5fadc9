"""`make demo`: real local servers, an Airflow, one backup and one restore, below `.demo`."""
