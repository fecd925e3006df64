"""Export: a recipe as a stock checkpoint, verified against its score."""
