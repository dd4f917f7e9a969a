"""Gold as files that people work on elsewhere: spreadsheets, and Label Studio's tasks.

GoldBook ─▶ Statement ─▶ cells | tasks ─▶ .csv | .xlsx | .json
files ─▶ Row ─▶ Statement ─▶ GoldBook
"""

from llmtagger.goldsheets.transfer import SUFFIXES, Imported, export_gold, import_gold

__all__ = ["SUFFIXES", "Imported", "export_gold", "import_gold"]
