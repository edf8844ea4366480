"""What figures have in common, whatever they show: no text of one lies over another or is cut."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text


def assert_texts_are_apart(figure: Figure) -> None:
    """Assert that no text of a figure lies over another one or beyond its edges."""
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    for axes in figure.axes:
        # An axis keeps ticks outside its limits; they are not drawn.
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high or not axes.axison:
                    shown = [text for text in shown if text not in (tick.label1, tick.label2)]
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in shown]  # type: ignore[attr-defined]
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)
    for name, box in boxes:
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name
