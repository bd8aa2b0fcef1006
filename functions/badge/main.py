"""An HTTP endpoint: a badge as SVG, for `<img src=".../badge?label=build&value=passing">`, or from
JSON that was posted."""

from html import escape
from urllib.parse import parse_qsl

from funcrt import Event, Reject

COLOURS = {"passing": "#3a3", "failing": "#c33"}
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="160" height="20">'
    '<rect width="160" height="20" rx="3" fill="{colour}"/>'
    '<text x="8" y="14" fill="#fff" font-family="sans-serif" font-size="11">{text}</text></svg>\n'
)


def handler(event: Event) -> Event:
    """The badge as an event whose data is the picture: the reply's body and content type."""
    query = dict(parse_qsl(str(event.extensions.get("httpquery", ""))))
    asked = event.json() if event.data else query
    label, value = str(asked.get("label", "funcrt")), str(asked.get("value", "ready"))
    if len(label + value) > 20:
        raise Reject("label and value have room for 20 characters")  # the caller gets a 422
    picture = SVG.format(
        colour=COLOURS.get(value, "#555"), text=f"{escape(label)}: {escape(value)}"
    )
    return Event.create("badge.drawn", picture, "image/svg+xml")
