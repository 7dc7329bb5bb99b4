"""The state of the system, as the API shows it: models, indexing, ratings, dead letters."""
