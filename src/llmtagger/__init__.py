"""Tags e-commerce products with a language model, and shows the evidence for every tag."""

__version__ = "0.2.0"
