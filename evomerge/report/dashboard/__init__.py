"""What optuna-dashboard shows of a run: the record made readable on the way out, nothing written (ADR 29)."""
