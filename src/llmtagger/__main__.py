"""`python -m llmtagger`, the same as the command."""

from llmtagger.cli import main

if __name__ == "__main__":
    main()
