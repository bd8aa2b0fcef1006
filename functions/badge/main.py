"""An HTTP endpoint: a badge as SVG, from `{"label": "build", "value": "passing"}`."""

from html import escape

from funcrt import Event

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="160" height="20">'
    '<rect width="160" height="20" rx="3" fill="#555"/>'
    '<text x="8" y="14" fill="#fff" font-family="sans-serif" font-size="11">{}: {}</text></svg>'
)


def handler(badge: dict[str, str]) -> Event:
    """The badge as an event whose data is the picture."""
    label, value = escape(badge.get("label", "funcrt")), escape(badge.get("value", "ready"))
    return Event.create("badge.drawn", SVG.format(label, value), "image/svg+xml")
