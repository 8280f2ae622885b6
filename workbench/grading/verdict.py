"""The card that a learner sees below a cell: as HTML that reads well aloud and without colour, or as plain text."""

import html
from dataclasses import dataclass
from typing import Any, Literal

_SIGNS = {"correct": "✓", "not yet": "✗", "open": "…", "hint": "→", "unknown": "?"}
_BORDERS = {
    "correct": "6px double #1b7f4b",
    "not yet": "6px dashed #b3470a",
    "open": "6px dotted #5f6b7a",
    "hint": "6px solid #2a63b8",
    "unknown": "6px dashed #5f6b7a",
}


@dataclass(frozen=True)
class Card:
    """A headline, the question, and the paragraphs below; state is told by sign, word and line style, not by colour.

    Parameters
    ----------
    state : what the card is about; `passed` is true for "correct" alone.
    headline : shown in bold after the sign.
    question : the exercise's question, or "".
    paragraphs : plain sentences.
    form : a widget shown instead, in which the question is answered; None for none.
    """

    state: Literal["correct", "not yet", "open", "hint", "unknown"]
    headline: str
    question: str = ""
    paragraphs: tuple[str, ...] = ()
    form: Any = None

    @property
    def passed(self) -> bool:
        return self.state == "correct"

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines = [f"{_SIGNS[self.state]} {self.headline}"]
        lines += [f"  {text}" for text in (self.question, *self.paragraphs) if text]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_mimebundle_(self, **how: Any) -> Any:
        return {} if self.form is None else self.form._repr_mimebundle_(**how)

    def _repr_html_(self) -> str:
        question = f'<div style="opacity:.85"><em>{html.escape(self.question)}</em></div>' if self.question else ""
        body = "".join(f'<p style="margin:.35em 0 0">{html.escape(text)}</p>' for text in self.paragraphs)
        return (
            f'<div role="status" aria-live="polite" class="workbench-verdict" data-state="{self.state}" '
            f'style="border-left:{_BORDERS[self.state]};padding:.4em .9em;margin:.3em 0;max-width:70ch;'
            'color:var(--jp-content-font-color1, inherit);font-family:var(--jp-content-font-family, sans-serif)">'
            f'<div><span aria-hidden="true">{_SIGNS[self.state]}</span> <strong>{html.escape(self.headline)}</strong>'
            f"</div>{question}{body}</div>"
        )
