"""Turn GitHub's webhook payloads into CloudEvents, one JSON line each.

    npm pack @octokit/webhooks-examples && tar xzf octokit-webhooks-examples-*.tgz
    python demo/convert.py package/api.github.com/index.json > demo/github.jsonl

Attributes follow the CloudEvents GitHub adapter (cloudevents/spec, adapters/github.md), with the
event's own name in the type (`com.github.issues.opened`). The examples carry no delivery header,
so the id is derived from the payload.
"""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

TAKE = {"issues": 29, "issue_comment": 5, "label": 3, "push": 3, "release": 3, "star": 3}
_SPACE = uuid.UUID("0f4c1c9e-3f1d-5d62-9a3f-6a5a2b1b7c44")


def convert(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    """One payload of the webhook event `name` as a CloudEvent in the JSON format."""
    action = payload.get("action")
    text = json.dumps(payload, sort_keys=True)
    event = {
        "specversion": "1.0",
        "id": str(uuid.uuid5(_SPACE, text)),
        "source": payload["repository"]["url"],
        "type": f"com.github.{name}" + (f".{action}" if action else ""),
        "datacontenttype": "application/json",
    }
    subject = {
        "issues": lambda: str(payload["issue"]["number"]),
        "issue_comment": lambda: str(payload["comment"]["id"]),
        "label": lambda: str(payload["label"]["id"]),
        "push": lambda: payload["ref"],
        "release": lambda: str(payload["release"]["id"]),
    }.get(name)
    if subject is not None:
        event["subject"] = subject()
    if name == "issues":
        event["time"] = payload["issue"]["updated_at"]
    event["data"] = payload
    return event


def main(index: Path) -> None:
    """Print the chosen examples."""
    for group in json.loads(index.read_text(encoding="utf-8")):
        for payload in group["examples"][: TAKE.get(group["name"], 0)]:
            if "repository" in payload:
                line = json.dumps(convert(group["name"], payload), separators=(",", ":"))
                print(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
