"""Checkpoints on disk: headers, architecture, digests, lazy tensors."""
