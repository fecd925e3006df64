"""mergekit's files: recipes converted both ways, and a config of mergekit-evolve as a space."""
