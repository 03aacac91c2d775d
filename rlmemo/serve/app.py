"""The addresses that are answered, and what a request must look like.

    GET    /v1/health                    somebody is here (no token)
    GET    /v1/about                     who plans, and in which world
    POST   /v1/people/NAME/events        events of a recording, in order; the plan after the last of them
    PUT    /v1/people/NAME/thumbs        what the person has said, all of it
    GET    /v1/people/NAME               how many events are known, their digest, and that of the thumbs
    GET    /v1/people/NAME/plan?event=ID the plan after an event
    DELETE /v1/people/NAME               forget all of it
    GET    /v1/replicas                  who thinks (with --ray): processes, people, what waits
    POST   /v1/replicas/NUMBER/drain     one of them ends when it has nothing to do, and begins anew

A request with the header `Priority: u=4` or more (RFC 9218) is a batch: it gets what others leave.
Every body is read as JSON, whatever its `Content-Type` says.
Every error is JSON, `{"error": "one line"}`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response

from env.errors import InputError
from env.thumbs import HOURS
from env.timeline import Event
from rlmemo.serve.admission import MOST_WAITING, Admission, busy
from rlmemo.serve.door import HEALTH, TokenGuard, refusal
from rlmemo.serve.people import Believed, People, Person, Refused, SentEvent
from rlmemo.serve.thumbs_sent import MOST
from rlmemo.store.live_ledger import LivePlan
from rlmemo.store.records import Prewarm

if TYPE_CHECKING:
    from rlmemo.serve.replicas import Replicas

MOST_EVENTS = 500
LATEST_T = 4e9
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
EVENT_ID = Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")
TARGET = Field(min_length=1, max_length=512)


class Strict(BaseModel):
    """Nothing that is not known, no number in quotes, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class PrewarmBody(Strict):
    """A prewarm of a plan."""

    target: str = TARGET
    delay_s: float = Field(ge=0.0, le=86400.0)


class PlanBody(Strict):
    """What a device planned itself."""

    policy: str = Field(min_length=1, max_length=200)
    policy_version: str = Field(max_length=200)
    prewarms: list[PrewarmBody] = Field(max_length=64)
    let_go: list[str] = Field(max_length=64)
    made_at: float = Field(0.0, ge=0.0, le=LATEST_T)

    def plan(self) -> LivePlan:
        """As the ledger keeps it."""
        made = [Prewarm(p.target, p.delay_s) for p in self.prewarms]
        return LivePlan(self.policy, self.policy_version, made, self.let_go, made_at=self.made_at)


class EventBody(Strict):
    """An event; see `SentEvent`."""

    id: str = EVENT_ID
    t: float = Field(ge=0.0, le=LATEST_T)
    target: str = TARGET
    kind: Literal["app", "page", "file"] = "app"
    off: float | None = Field(None, ge=0.0, le=LATEST_T)
    done: PlanBody | None = None

    def sent(self) -> SentEvent:
        """As `Person.take` reads it."""
        done = self.done.plan() if self.done is not None else None
        return SentEvent(self.id, Event(self.t, self.target, self.kind), self.off, done)


class AfterBody(Strict):
    """See `Believed`."""

    events: int = Field(ge=0)
    digest: str = Field(max_length=64)


class EventsBody(Strict):
    """A request with events. tz: the recording's time zone; memory_mb: the device's memory for what is warm;
    after: where the device believes the server to stand."""

    tz: str = Field(min_length=1, max_length=64)
    events: list[EventBody] = Field(min_length=1, max_length=MOST_EVENTS)
    memory_mb: float | None = Field(None, gt=0.0, le=1e9)
    after: AfterBody | None = None


class ThumbBody(Strict):
    """A thumb; see `env.thumbs.Thumb`."""

    hour: int = Field(ge=0, lt=HOURS)
    up: bool
    hit: bool | None = None
    targets: list[Annotated[str, TARGET]] = Field(max_length=64)


class ThumbsBody(Strict):
    """All that was said. tz, memory_mb: as of `EventsBody`."""

    tz: str = Field(min_length=1, max_length=64)
    thumbs: list[ThumbBody] = Field(max_length=MOST)
    memory_mb: float | None = Field(None, gt=0.0, le=1e9)


def make_app(
    people: People, about: Mapping[str, Any], *, token: str, hosts: Iterable[str], most: int = MOST_WAITING,
    crew: Replicas | None = None,
) -> FastAPI:  # fmt: skip
    """The application. about: what is told of who plans; most: requests that may be under way; crew: the
    replicas, where there are any."""
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None,
        middleware=[
            Middleware(TokenGuard, token=token, hosts=list(hosts)), Middleware(Admission, most=most)
        ],
    )  # fmt: skip

    @app.get(HEALTH)
    def health() -> dict[str, Any]:
        return {"ok": True, "service": "rlmemo"}

    @app.get("/v1/about")
    def tell() -> dict[str, Any]:
        return dict(about)

    @app.post("/v1/people/{name}/events")
    def take(name: str, body: EventsBody) -> dict[str, Any]:
        _check_name(name)
        after = Believed(body.after.events, body.after.digest) if body.after else None
        with people.asked(name):
            person = people.person(name, body.tz, body.memory_mb)
            before = len(person.chain)
            plan = person.take([x.sent() for x in body.events], after)
            return {**_standing(person), "new": len(person.chain) - before, "plan": _told(plan)}

    @app.put("/v1/people/{name}/thumbs")
    def hear(name: str, body: ThumbsBody) -> dict[str, Any]:
        _check_name(name)
        with people.asked(name):
            person = people.person(name, body.tz, body.memory_mb)
            person.hear([x.model_dump() for x in body.thumbs])
            return _standing(person)

    @app.get("/v1/people/{name}")
    def stands(name: str) -> dict[str, Any]:
        with people.asked(_check_name(name)):
            person = people.known(name)
            return _standing(person) if person else {"events": 0, "digest": "", "thumbs": "", "tz": None}

    @app.get("/v1/people/{name}/plan")
    def planned(name: str, event: str) -> dict[str, Any]:
        with people.asked(_check_name(name)):
            person = people.known(name)
            if person is None:
                raise Refused(404, f"nobody is known as {name!r}")
            return {"plan": _told(person.plan(event))}

    @app.delete("/v1/people/{name}")
    def forget(name: str) -> dict[str, Any]:
        with people.asked(_check_name(name)):
            return {"forgotten": people.forget(name)}

    if crew is not None:

        @app.get("/v1/replicas")
        def replicas() -> dict[str, Any]:
            return crew.stands()

        @app.post("/v1/replicas/{number}/drain")
        def drain(number: int) -> dict[str, Any]:
            return crew.drain(number)

    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> Response:
        return refusal(error.status, str(error), **error.more) if error.status != 503 else busy(str(error))

    @app.exception_handler(InputError)
    def unusable(_: Request, error: InputError) -> Response:
        return refusal(422, " ".join(str(error).split()))

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refusal(422, f"the body is no JSON (at character {first['loc'][-1]}); send an object")
        where = ".".join(str(x) for x in first["loc"] if x != "body") or "the body"
        if first["type"] == "model_attributes_type":
            return refusal(422, f"{where}: is no object; docs/serve.md says what is in it")
        if first["type"] == "missing" and where == "the body":
            return refusal(422, "the body is empty; send an object, as JSON")
        return refusal(422, f"{where}: {first['msg'].lower()}")

    @app.exception_handler(HTTPException)
    def elsewhere(_: Request, error: HTTPException) -> Response:
        if error.status_code == 400 and "parsing the body" in str(error.detail):  # FastAPI's words
            return refusal(422, "the body is no JSON in UTF-8, or too deep; send an object")
        return refusal(error.status_code, str(error.detail).lower())

    @app.exception_handler(Exception)
    def broken(_: Request, error: Exception) -> JSONResponse:
        logging.getLogger("uvicorn.error").error("a request failed", exc_info=error)
        return refusal(500, "something went wrong here; the server's terminal says what")

    return app


def _check_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise Refused(422, "a name has 1 to 64 letters, digits, dots, dashes and underscores")
    return name


def _standing(person: Person) -> dict[str, Any]:
    return {
        "events": len(person.chain), "digest": person.chain.digest(), "thumbs": person.heard,
        "tz": person.tz,
    }  # fmt: skip


def _told(plan: LivePlan | None) -> dict[str, Any] | None:
    """A plan, as JSON."""
    if plan is None:
        return None
    return {
        "policy": plan.policy, "policy_version": plan.policy_version,
        "prewarms": [{"target": p.target, "delay_s": p.delay_s} for p in plan.plan],
        "let_go": list(plan.let_go), "probabilities": dict(plan.probabilities),
        "none_probability": plan.none_probability, "made_at": plan.made_at, "took_s": plan.took_s,
    }  # fmt: skip
