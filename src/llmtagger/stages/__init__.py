"""The stages of the pipeline: no network and no model library in here."""
