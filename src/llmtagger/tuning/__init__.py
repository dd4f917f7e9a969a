"""Tunes the model to a labelled catalogue: examples, training, and adapters kept by an index."""
