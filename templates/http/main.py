"""Greet over HTTP: GET /NAME?who=you, or POST {"who": "you"}."""

from urllib.parse import parse_qsl

from funcrt import Event, Reject


def handler(event: Event) -> dict[str, str]:
    """What is returned is the reply's JSON body."""
    asked = event.json() if event.data else dict(parse_qsl(str(event.extensions["httpquery"])))
    if not asked.get("who"):
        raise Reject("say who")  # a 422
    return {"greeting": f"Hello {asked['who']}!"}
