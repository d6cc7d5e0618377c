"""Cells of text: which are missing, and which are numbers."""

__all__ = ["MISSING_WORDS", "is_missing", "is_number"]

MISSING_WORDS = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN"),
    *("null", "NULL", "Null", "None", "none"),
)


def is_number(cell: str) -> bool:
    """Whether a cell is a number (missing and infinite included)."""
    if is_missing(cell):
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or a word that means "missing" everywhere."""
    return cell.strip() in MISSING_WORDS
