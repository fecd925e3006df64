"""Scoring: tasks and items, and an evaluator that keeps one model resident."""
