"""What is typed for a model's options, as --model.OPTION VALUE."""

__all__ = ["option_value"]


def option_value(text: str) -> bool | int | float | str:
    """A truth value, a number or a word; the model's configuration checks which it must be."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
