"""The archive: a study as the record, item scores, the Pareto front, and the run folder."""
