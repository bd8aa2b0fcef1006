"""A small debugger: as much of the Debug Adapter Protocol as an editor needs to stop at a line.

https://microsoft.github.io/debug-adapter-protocol/specification: a message is a header
`Content-Length: N`, an empty line, and N bytes of JSON.
"""

import contextlib
import json
import queue
import socket
import threading
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


class Editor:
    """One attached editor: a session with the adapter, and one more for each process that the
    adapter tells it of, as editors do it for `debugpyAttach`."""

    def __init__(self, port: int, breakpoints: dict[Path, list[int]], **arguments: Any) -> None:
        self.port = port
        self.breakpoints = breakpoints
        self.arguments = arguments
        self.sessions: queue.Queue[Session] = queue.Queue()
        """Those of processes, as they come."""
        self.made: list[Session] = []
        self.main = Session(self, {"connect": {"host": "127.0.0.1", "port": port}, **arguments})

    def session(self) -> "Session":
        """The next process that was attached to."""
        return self.sessions.get(timeout=PATIENCE_S)

    def close(self) -> None:
        for session in self.made:
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)
            session.reader.join(PATIENCE_S)


class Session:
    def __init__(self, editor: Editor, attach: dict[str, Any]) -> None:
        self.editor = editor
        self.sock = socket.create_connection(("127.0.0.1", editor.port), PATIENCE_S)
        self.sock.settimeout(None)
        self.number = 0
        self.answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.initialized = threading.Event()
        self.ended = threading.Event()
        editor.made.append(self)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.ask("initialize", adapterID="test", pathFormat="path")
        attached = self._send("attach", attach)
        assert self.initialized.wait(PATIENCE_S)
        for file, lines in editor.breakpoints.items():
            source = {"path": str(file)}
            self.ask("setBreakpoints", source=source, breakpoints=[{"line": n} for n in lines])
        self.ask("configurationDone")
        assert self.answers[attached].get(timeout=PATIENCE_S)["success"]

    def _send(self, command: str, arguments: dict[str, Any]) -> int:
        self.number += 1
        number = self.number
        self.answers[number] = queue.Queue()
        message = {"seq": number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.sock.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return number

    def ask(self, command: str, **arguments: Any) -> Any:
        answer = self.answers[self._send(command, arguments)].get(timeout=PATIENCE_S)
        assert answer["success"], answer
        return answer.get("body")

    def _read(self) -> None:
        with self.sock, self.sock.makefile("rb") as file, contextlib.suppress(ConnectionError):
            while header := file.readline():
                length = int(header.partition(b":")[2])
                file.readline()
                self._take(json.loads(file.read(length)))
        self.ended.set()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "response":
            self.answers[message["request_seq"]].put(message)
        elif message["event"] == "initialized":
            self.initialized.set()
        elif message["event"] == "terminated":
            self.ended.set()
        elif message["event"] == "debugpyAttach":
            threading.Thread(target=self._follow, args=[message["body"]], daemon=True).start()
        elif message["event"] == "stopped":
            self.events.put(message["body"])

    def _follow(self, attach: dict[str, Any]) -> None:
        self.editor.sessions.put(Session(self.editor, attach))

    def stopped(self) -> dict[str, Any]:
        """Wait until it has stopped; its innermost frame."""
        thread = self.events.get(timeout=PATIENCE_S)["threadId"]
        frame: dict[str, Any] = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
        return {"thread": thread, **frame}

    def evaluate(self, expression: str, frame: dict[str, Any]) -> str:
        found: str = self.ask("evaluate", expression=expression, frameId=frame["id"])["result"]
        return found

    def go_on(self, frame: dict[str, Any]) -> None:
        self.ask("continue", threadId=frame["thread"])
