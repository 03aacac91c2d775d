"""A model behind an OpenAI-compatible endpoint as a policy: asked as it is, never trained.

    openai:http://localhost:8000/v1#MODEL                    asked by chat
    openai:http://localhost:8000/v1/completions#MODEL        asked to go on with a text
    the same with --ask-like RUN                             a trained run that a server has as GGUF

The question is that of `rlmemo.model.text_prompt`, with another instruction: the likeliest letter first.
Where the server gives log-probabilities, those of the first letter are the ranking and "none of these".
Where it gives none, what was said is the ranking: letters in the order in which they were said, nothing
filled up, each with the share of validation decisions in which an answer's letter at that place was right
(a Dirichlet prior of 1/2 for each outcome); `none` lists nothing. An answer that cannot be read lists
nothing either, and is counted.

Nothing is contacted before such a policy is made. What is sent: the moments as text, so names of targets
and times. The key is read from the environment, is sent to that one address, and is written nowhere.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from env.errors import InputError
from env.ranking import Ranking, Stream, decisions
from env.slate.slate import build_slates
from env.sources.sqlite_files import spare_database
from env.splits import Split
from env.timeline import Timeline
from rlmemo.model.readings import slates_of
from rlmemo.model.text import TextReading
from rlmemo.model.text_prompt import HISTORY_HEAD, LETTERS, TextTimeline, history_start
from rlmemo.model.thumbs_so_far import said_by
from rlmemo.policies.endpoint_calls import PLACES, SCHEME, Address, Answer, Endpoint, Question
from rlmemo.policies.endpoint_options import Asking
from rlmemo.policies.few_shot import Examples
from rlmemo.policies.protocol import Policy
from rlmemo.policies.run import reading_of_run

TUNING = 40
"""Validation decisions from which the probabilities of places are counted, where the server gives none."""
KEPT_TIMELINES = 16
WARN_AFTER = 20
_BEGINS = '{"question": "'


def check_calls(
    policies: Sequence[Policy], timelines: Sequence[Timeline], splits: Split | Sequence[Split], streamed: int
) -> None:
    """Raises InputError where a judgement would need more calls than an endpoint's budget has left, before
    the first of them is sent. streamed: decisions that are asked anew for the clock."""
    folds = [splits] if isinstance(splits, Split) else splits
    for policy in policies:
        if isinstance(policy, EndpointPolicy):
            needed = policy.calls_needed(timelines, folds, streamed)
            if needed > policy.endpoint.left:
                raise InputError(
                    f"{policy.name}: this takes {needed:,} calls, and --max-calls is "
                    f"{policy.asking.max_calls:,}; give --max-calls {needed} (with some to spare for "
                    "retries), or shorter timelines"
                )


class EndpointPolicy:
    """A model behind an endpoint, behind the `Policy` protocol."""

    def __init__(self, spec: str, asking: Asking | None = None) -> None:
        """Raises InputError where the address is none, or nobody answers there."""
        self.asking = asking or Asking()
        self.asking.check()
        self.address = Address.of(spec)
        self._reads = None if self.asking.like is None else self._read_like(self.asking.like)
        self.endpoint = Endpoint(self.address, self.asking)
        shots = self.asking.shots
        short = self.address.model.rstrip("/").rpartition("/")[2] or self.address.model
        self.name = f"{SCHEME}{short}" + (f" {shots}-shot" if shots else "")
        self._examples = Examples(shots)
        self._known: dict[str, Answer] = {}
        self._texts: dict[tuple[str, int, bytes], TextTimeline] = {}
        self._right = np.zeros(PLACES + 1)  # validation answers right at each place, and at none
        self._lock = threading.Lock()
        self._unread, self._cut = 0, False
        self._remember()
        if self.address.warning:
            print(f"warning: {self.address.warning}", file=sys.stderr)
        self.endpoint.reach()

    def _read_like(self, run: Path) -> TextReading:
        """How the model of a run reads. Raises InputError where it cannot be asked so."""
        if self.address.chat:
            raise InputError(
                f"--ask-like {run}: the run's own text is sent as it is, and {self.address.url} puts another "
                f"around it; give {SCHEME}{self.address.base}/completions#{self.address.model}"
            )
        return reading_of_run(run)

    @property
    def note(self) -> str:
        """What the numbers of this policy depend on."""
        answers = list(self._known.values())
        unread = sum(not x.readable for x in answers)
        parts = [f"{self.endpoint.calls} calls"]
        if any(x.p is None and x.said for x in answers):
            parts.append(
                f"no log-probabilities, so places count as on {int(self._right.sum())} validation decisions"
            )
        told = self.endpoint.reread
        if told.prompts:
            share = 100.0 * told.cached / told.prompts
            parts.append(
                f"{share:.0f} % of {told.prompts:,} prompt tokens stood in the server's prefix cache"
            )
        if unread:
            parts.append(f"{unread} of {len(answers)} answers could not be read and list nothing")
        return f"{self.name}: " + "; ".join(parts)

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing is trained. Examples come from `split.train`; where the server gives no
        log-probabilities, `TUNING` validation decisions say how often each place is right."""
        self._examples.fit(timelines, split)
        self._right[:] = 0
        asked = [(t, int(i)) for t, e in zip(timelines, split.validation, strict=True) for i in decisions(e)]
        some = np.unique(np.linspace(0, len(asked) - 1, min(TUNING, len(asked))).astype(int))
        chosen = [asked[k] for k in some]
        if not chosen or self._ask(chosen[:1])[0].p is not None:
            return
        for (timeline, i), answer in zip(chosen, self._ask(chosen), strict=True):
            if answer.said and answer.p is None:
                next_place = int(self._text(timeline).slates.answer[i])
                place = answer.said.index(next_place) if next_place in answer.said else PLACES
                self._right[place] += 1

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """What the model says; see the top of this file. Raises InputError where it cannot be asked, and
        before anything is asked where the budget of calls does not suffice."""
        rows = np.asarray(indices, np.int64)
        return self._ranking(timeline, rows, self._ask([(timeline, int(i)) for i in rows]))

    def stream(self, timeline: Timeline) -> Stream:
        """Decision after decision, each asked anew, so that what is measured is the endpoint."""

        def answer(i: int) -> Ranking:
            return self._ranking(timeline, np.array([i]), self._ask([(timeline, i)], anew=True))

        return answer

    def calls_needed(self, timelines: Sequence[Timeline], splits: Sequence[Split], streamed: int) -> int:
        """Calls that judging on `splits` takes at most, without retries, less those already answered.

        streamed: decisions that are asked anew for the clock."""
        keys: set[str] = set()
        for split in splits:
            self._examples.fit(timelines, split)
            for timeline, *parts in zip(timelines, split.validation, split.test, strict=True):
                for i in decisions(np.concatenate(parts)):
                    keys.add(self._key(self._question(timeline, int(i))))
        return len(keys - self._known.keys()) + streamed

    def _ranking(self, timeline: Timeline, rows: np.ndarray, answers: Sequence[Answer]) -> Ranking:
        out = Ranking.empty(len(rows), max([1, *(len(a.said) for a in answers)]))
        share = (self._right + 0.5) / (self._right + 0.5).sum()
        candidates = self._text(timeline).slates.candidates
        for d, (i, answer) in enumerate(zip(rows, answers, strict=True)):
            n = len(answer.said)
            out.targets[d, :n] = candidates[i, list(answer.said)]
            out.probability[d, :n] = share[:n] if answer.p is None else answer.p
            out.none[d] = max(0.0, 1.0 - float(out.probability[d].sum()))
        return out

    def _ask(self, asked: Sequence[tuple[Timeline, int]], *, anew: bool = False) -> list[Answer]:
        """The answers, from memory where there are any."""
        questions = [self._question(timeline, i) for timeline, i in asked]
        keys = [self._key(q) for q in questions]
        new = {k: q for k, q in zip(keys, questions, strict=True) if anew or k not in self._known}
        if len(new) > self.endpoint.left:
            raise InputError(
                f"{self.name}: {len(new)} decisions are to be asked and {max(0, self.endpoint.left)} of "
                f"--max-calls {self.asking.max_calls} are left; give --max-calls "
                f"{self.endpoint.calls + len(new)} or more, or fewer events"
            )
        pool = ThreadPoolExecutor(self.asking.at_once)
        try:
            waiting = {k: pool.submit(self._ask_one, k, q) for k, q in new.items()}
            told = {k: w.result() for k, w in waiting.items()}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return [told[k] if k in told else self._known[k] for k in keys]

    def _ask_one(self, key: str, question: Question) -> Answer:
        answer = self.endpoint.ask(question) if question.places else Answer()
        with self._lock:
            if self.asking.answers is not None and key not in self._known:
                with self.asking.answers.open("a", encoding="utf-8") as file:
                    said = {"question": key, "said": answer.said, "p": answer.p, "readable": answer.readable}
                    file.write(("\n" if self._cut else "") + json.dumps(said) + "\n")
                    self._cut = False
            self._known[key] = answer
            self._unread += not answer.readable
            if self._unread == len(self._known) == WARN_AFTER:
                print(
                    f"warning: {self.name}: none of the first {WARN_AFTER} answers could be read; they begin "
                    f"like {self.endpoint.shown(answer.text)!r}, and one letter was asked for",
                    file=sys.stderr,
                )
        return answer

    def _remember(self) -> None:
        """Read the file of answers. It holds hashes of questions and places in slates: no name, no key."""
        path = self.asking.answers
        if path is None:
            return
        spare_database(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--answers {path}: cannot be used ({error}); name a file elsewhere") from None
        lines = text.splitlines()
        self._cut = bool(text) and not text.endswith("\n")
        for number, line in enumerate(filter(None, lines), 1):
            try:
                row = json.loads(line)
                p = None if row["p"] is None else tuple(map(float, row["p"]))
                answer = Answer(tuple(map(int, row["said"])), p, bool(row["readable"]))
                self._known[str(row["question"])] = answer
            except (ValueError, KeyError, TypeError):
                if not _BEGINS.startswith(line[: len(_BEGINS)]):  # else a crash cut it off
                    raise InputError(
                        f"--answers {path}, line {number}: is no answer; name another file"
                    ) from None

    def _key(self, question: Question) -> str:
        asked = json.dumps([self.address.base, self.address.chat, self.address.model, question.text()])
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()

    def _question(self, timeline: Timeline, i: int) -> Question:
        text = self._text(timeline)
        places = int((text.slates.candidates[i] >= 0).sum())
        if self._reads is not None:
            ids = self._reads.prompts(timeline, slates_of(timeline), np.array([i]))[0]
            return Question((), "", "", places, self._reads.tokenizer.decode(ids[ids >= 0]))
        said = None
        if timeline.thumbs is not None:
            said = said_by(timeline, np.array([i]), text.slates.candidates[[i]])
        return Question(
            tuple((q, LETTERS[p[0][0]] if p else "none") for q, p in self._examples.shown(text, i)),
            HISTORY_HEAD + "".join(text.lines[history_start(i, text.keep) : i + 1]),
            text.question(i, said=said),
            places,
        )

    def _text(self, timeline: Timeline) -> TextTimeline:
        key = (timeline.user, len(timeline), timeline.contents())
        if key not in self._texts:
            while len(self._texts) >= KEPT_TIMELINES:
                self._texts.pop(next(iter(self._texts)))
            self._texts[key] = TextTimeline.of(timeline, build_slates(timeline, len(LETTERS)))
        return self._texts[key]
