"""Text in the reports of the tasks' evaluations; figure_text.py has that of the gate's figures. Pure."""


def shortened(text: str, characters: int) -> str:
    """``text`` on one line, of ``characters`` at most."""
    text = " ".join(text.split())
    return text if len(text) <= characters else text[: characters - 1] + "…"
