"""The MySQL store: MySQL or MariaDB servers (store.py)."""
