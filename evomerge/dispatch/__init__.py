"""Dispatch: candidates to evaluators, in this process or on a Ray cluster."""
