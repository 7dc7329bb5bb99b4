"""The event lake: its files, the SQL views over them, the dashboard and exports."""
