"""FastAPI with Latchkey: every route needs a key except one, and some need a scope.

    uvicorn fastapi_app:app
    curl -H "Authorization: Bearer $KEY" http://127.0.0.1:8000/me
"""

from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request

from latchkey import Answer
from latchkey.asgi import LatchkeyMiddleware

app = FastAPI()
app.add_middleware(LatchkeyMiddleware, max_age=60, public_paths=["/health"])


def caller(request: Request) -> Answer:
    """The answer about the caller's key."""
    answer: Answer = request.scope["latchkey"]
    return answer


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "up"}


@app.get("/me")
def me(who: Answer = Depends(caller)) -> dict[str, Any]:
    return {"subject": who.subject, "tenant": who.tenant, "scopes": sorted(who.scopes)}


@app.post("/things")
def create(who: Answer = Depends(caller)) -> dict[str, Any]:
    if "write" not in who.scopes:
        raise HTTPException(403, "this needs the scope write")
    return {"created_by": who.subject}
