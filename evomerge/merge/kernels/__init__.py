"""Steps that several methods share, each a pure function on tensors."""
