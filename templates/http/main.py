"""Greet over HTTP: GET /NAME/you, or POST {"who": "you"} to /NAME."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


async def handler(request: Request) -> Response:
    """What is returned is the answer, as it is."""
    if request.method == "POST":
        who = (await request.json()).get("who")
    else:
        who = request.path_params["who"]
    if not who:
        return JSONResponse({"error": "say who"}, status_code=422)
    return JSONResponse({"greeting": f"Hello {who}!"})
