"""The studio: prompts are edited, tried and compared in a browser."""
