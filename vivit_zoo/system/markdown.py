"""Tables in Markdown that can be read as they are."""

from collections.abc import Sequence

__all__ = ["markdown"]


def markdown(columns: dict[str, list[str]], left: Sequence[str] = ()) -> str:
    """Columns of text by title as an aligned Markdown table; all are right-aligned except those named in `left`."""
    width = {title: max(map(len, [title, *cells])) for title, cells in columns.items()}

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width[title]) if title in left else cell.rjust(width[title])
            for title, cell in zip(columns, cells, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width[title] if title in left else "-" * (width[title] - 1) + ":" for title in columns]
    return "\n".join(line(cells) for cells in [list(columns), rule, *zip(*columns.values(), strict=True)])
