"""Any causal language model of a hub as a policy's model: its tokens for the prompt as text.

The moment is written by `rlmemo.model.text_prompt` and tokenized piece by piece (head, one line an event,
question), so that the tokens of a growing history only append. Where the tokenizer has a chat template,
all of it is one user message, and the reply begins with `Answer:`; a template never sees a target's name.

Which tokens the letters, digits and `none` are is found out, and checked, on the tokenizer itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from env.errors import InputError
from env.slate.slate import Slates
from env.timeline import Timeline
from rlmemo.model import slots
from rlmemo.model.hub import too_few_rows
from rlmemo.model.readings import Looks, slates_of
from rlmemo.model.text_prompt import (
    ANSWER,
    INSTRUCTION,
    KEEP,
    LETTERS,
    LONG,
    TextTimeline,
    Wording,
    free_tenths,
    history_start,
)
from rlmemo.model.thumbs_so_far import said_by

_MARK = "\u2317moment\u2317"
# How a letter may follow what stands before it: behind a space that belongs to its token, or behind one that
# belongs to the prompt. The second is for vocabularies without " A".
_SCHEMES = ((ANSWER, " "), (ANSWER + " ", ""), (ANSWER + "\n", ""))


@dataclass
class _Told:
    """One timeline in tokens: ids of all lines one after the other, and where each line ends."""

    story: TextTimeline
    ids: np.ndarray
    ends: np.ndarray

    def history(self, first: int, last: int) -> np.ndarray:
        """Tokens of the lines first..last."""
        return self.ids[self.ends[first] : self.ends[last + 1]]


@dataclass(frozen=True)
class TextReading:
    """See `rlmemo.model.readings.Reading`.

    tokenizer: the model's. words: a tokenizer for TRL, whose words are the numbers of tokens. head, tail:
    tokens before the history and after the question. none: tokens of the answer "none", the first of which
    is `nothing`. most: tokens a prompt may have; keep: events of history (`text_prompt.KEEP`).
    on_gpu, micro_batch: see `arguments`. looks: through a scorer, which then has a say in a ranking; what is
    read stays the same.
    """

    tokenizer: Any
    words: Any
    head: np.ndarray
    tail: np.ndarray
    letters: np.ndarray
    delays: np.ndarray
    none: tuple[int, ...]
    end: int
    most: int
    keep: int = KEEP
    wording: Wording = LONG
    on_gpu: bool = False
    micro_batch: int = 0
    kind: str = "text"
    named: int = 0
    residents: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    nobody: int = 0
    when: np.ndarray | None = None
    shares: bool = True
    looks: Looks | None = field(default=None, repr=False, compare=False)
    told: dict[Any, _Told] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        config: Any,
        *,
        keep: int = KEEP,
        wording: Wording = LONG,
        on_gpu: bool = False,
        micro_batch: int = 0,
        learned: int = 0,
    ) -> TextReading:
        """The reading of a model with this tokenizer and configuration. learned: tokens of an adapter that
        stand before a prompt, see `Loading`. Raises InputError where the tokenizer cannot write the prompt
        or has tokens that the model does not know."""
        config = config.get_text_config()
        if len(tokenizer) > config.vocab_size:
            raise InputError(too_few_rows(len(tokenizer), config.vocab_size))
        _check_writes(tokenizer)
        before, after = _frame(tokenizer)
        opening, letters, delays, none = _answer_tokens(tokenizer, after)
        end = _end(tokenizer)
        if end in {*letters, none[0]}:
            raise InputError("the tokenizer ends a text with a letter; give another model")
        most = min(
            getattr(config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length or 10**9
        )
        return cls(
            tokenizer=tokenizer,
            words=_words(len(tokenizer), end, config),
            head=np.array(_encode(tokenizer, before + wording.head, ours=True), np.int64),
            tail=np.array(opening, np.int64),
            letters=np.array(letters, np.int64),
            delays=np.array(delays, np.int64),
            none=tuple(none),
            end=end,
            most=int(most) - 2 * len(LETTERS) - len(none) - 1 - learned,
            keep=keep,
            wording=wording,
            on_gpu=on_gpu,
            micro_batch=micro_batch,
        )

    def __deepcopy__(self, memo: Any) -> TextReading:
        return self  # what it has told is nobody's to change

    @property
    def nothing(self) -> int:
        """The token that begins "none"."""
        return self.none[0]

    @property
    def batch(self) -> int:
        """Prompts in one forward pass."""
        return self.micro_batch or (32 if self.on_gpu else 16)

    def look(self, timeline: Timeline, rows: np.ndarray) -> Slates:
        return slates_of(timeline) if self.looks is None else self.looks.look(timeline, rows)

    def prompts(
        self,
        timeline: Timeline,
        slates: Slates,
        rows: np.ndarray,
        warm: np.ndarray | None = None,
        free: np.ndarray | None = None,
        residents: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Reading.prompts`; nothing is read of residents. Where a prompt would be longer than the
        model's context, the oldest events are left out, a few at a time; the question is never cut."""
        told = self._tell(timeline, slates if self.looks is None else slates_of(timeline))
        rows = np.asarray(rows, np.int64)
        said = None
        if timeline.thumbs is not None:
            said = said_by(timeline, rows, slates.candidates[rows])
        asked = [
            told.story.question(
                int(i),
                None if warm is None else warm[d],
                1.0 if free is None else float(free[d]),
                None if said is None else said.row(d),
            )
            for d, i in enumerate(rows)
        ]
        made = []
        for i, question in zip(rows.tolist(), self._encode(asked), strict=True):
            history = told.history(self.first_event(i, told.ends, len(question)), i)
            made.append(np.concatenate([self.head, history, question, self.tail]))
        width = max(map(len, made), default=0)
        out = np.full((len(made), width), -1, np.int64)
        for d, ids in enumerate(made):
            out[d, width - len(ids) :] = ids
        return out

    def first_event(self, i: int, ends: Sequence[int] | np.ndarray, question: int) -> int:
        """The first event in the prompt of decision i, i + 1 for none. ends: tokens of all lines before each
        event's; question: tokens of the question. Raises InputError where not even that has room."""
        room = self.most - len(self.head) - len(self.tail) - question
        if room < 0:
            raise InputError(
                f"the model's context leaves {max(0, self.most)} tokens for a prompt, too few for the "
                f"question ({len(self.head) + len(self.tail) + question} tokens); give another model, or "
                "fewer --virtual-tokens if it has any"
            )
        first = history_start(i, self.keep)
        while first <= i and ends[i + 1] - ends[first] > room:
            first += max(1, self.keep // 4)
        return min(first, i + 1)

    def line_ids(self, line: str) -> list[int]:
        """Tokens of an event's line, or of a question: text that holds names, in which nothing is special."""
        return list(self._encode([line])[0])

    def memory(self, prompts: np.ndarray) -> np.ndarray:
        return np.zeros((len(prompts), 0), bool)

    def free_level(self, free: np.ndarray) -> np.ndarray:
        """What a prompt tells of the free share of memory, int64 [D]."""
        return np.array([free_tenths(x) for x in np.asarray(free)], np.int64)

    def plan_ids(self, picks: Sequence[tuple[int, int]], naming: bool = False) -> list[int]:
        """Tokens of a plan of (place, delay bucket) pairs, with its end."""
        if not picks:
            return [*self.none, self.end]
        ids = [int(x) for place, delay in sorted(picks) for x in (self.letters[place], self.delays[delay])]
        return [*ids, self.end]

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """The numbers of the tokens, which `words` reads back; padding is left out."""
        return " ".join(_word(int(i)) for i in ids if i >= 0)

    def arguments(self, batch: int) -> dict[str, Any]:
        """For TRL: no cutting (prompts fit already), and as many neighbours at a time as go into one packed
        sequence (`rlmemo.model.packing`), where an update has more; on a GPU bfloat16, and activations
        computed twice instead of kept."""
        micro = max(x for x in range(1, min(batch, self.batch) + 1) if batch % x == 0)
        return {
            "max_length": None,
            "bf16": self.on_gpu,
            "gradient_checkpointing": self.on_gpu,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": batch // micro,
            "train_sampling_strategy": "sequential",
        }

    def _tell(self, timeline: Timeline, slates: Slates) -> _Told:
        key = timeline.contents()
        if key not in self.told:
            if len(self.told) >= 32:
                self.told.pop(next(iter(self.told)))
            story = TextTimeline.of(timeline, slates, self.keep, self.wording)
            lines = self._encode(story.lines)
            ends = np.concatenate([[0], np.cumsum([len(x) for x in lines])]).astype(np.int64)
            ids = np.array([i for line in lines for i in line], np.int64)
            self.told[key] = _Told(story, ids, ends)
        return self.told[key]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Tokens of texts that hold names: what looks like a special token is read as plain characters."""
        if not texts:
            return []
        found = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
        return [list(ids) for ids in found["input_ids"]]


def _encode(tokenizer: Any, text: str, *, ours: bool = False) -> list[int]:
    """Tokens of a text of ours; only then are special tokens in it (a chat template's) special."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=not ours)["input_ids"])


def _check_writes(tokenizer: Any) -> None:
    """Raises InputError unless the tokenizer writes our text so that it can be read back."""

    def bare(text: str) -> str:
        return "".join(c for c in text.casefold() if c.isalnum())

    try:
        back = tokenizer.decode(_encode(tokenizer, INSTRUCTION))
    except Exception:  # what the Rust side raises for a word that its vocabulary lacks
        back = ""
    if bare(back) != bare(INSTRUCTION):
        raise InputError(
            "the model's tokenizer cannot write the prompt as text, nor is it ours; give a causal language "
            "model of a hub, or one pre-trained with this version's experiments/pretrain_base.py"
        )


def _frame(tokenizer: Any) -> tuple[str, str]:
    """What the model's format puts before the prompt and between the question and the answer."""
    if not getattr(tokenizer, "chat_template", None):
        starts = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        return (tokenizer.bos_token if starts else ""), ""
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # of Qwen3: the answer is read at once
            date_string="26 Jul 2024",  # of Llama 3: else every day would be another prompt
        )
        before, after = text.split(_MARK)
    except Exception as error:  # a template is a program of its own, and fails as it likes
        raise InputError(f"the model's chat template cannot be used ({error}); give another model") from None
    return before, after


def _answer_tokens(tokenizer: Any, after: str) -> tuple[list[int], list[int], list[int], list[int]]:
    """(tokens between question and answer, letters, delay digits, none), each letter and digit one token."""
    digits = [str(d) for d in range(len(slots.DELAYS_S))]
    for opening, space in _SCHEMES:
        start = _encode(tokenizer, after + opening, ours=True)
        letters = [_appended(tokenizer, opening, space + letter) for letter in LETTERS]
        none = _appended(tokenizer, opening, space + "none")
        firsts = {x[0] for x in [*letters, none] if x}
        if any(len(x) != 1 for x in letters) or not none or len(firsts) != len(LETTERS) + 1:
            continue
        delays = [_appended(tokenizer, opening + space + "A", d) for d in digits]
        if any(len(x) != 1 for x in delays):  # "A0" may be one token: then the digit that stands alone
            delays = [_encode(tokenizer, d) for d in digits]
        if all(len(x) == 1 for x in delays) and len({x[0] for x in delays}) == len(digits):
            return start, [x[0] for x in letters], [x[0] for x in delays], none
    # Whatever merges at the seams, a letter that stands alone is one token in any vocabulary of bytes.
    letters = [_encode(tokenizer, x)[-1:] for x in LETTERS]
    delays = [_encode(tokenizer, x)[-1:] for x in digits]
    none = _encode(tokenizer, "none")
    alone = [x[0] for x in [*letters, none[:1]] if x]
    if len(set(alone)) != len(LETTERS) + 1 or len({x[0] for x in delays if x}) != len(digits):
        raise InputError(
            "the model's tokenizer has no single token for each letter A to L; give another model"
        )
    start = _encode(tokenizer, after + _SCHEMES[1][0], ours=True)
    return start, [x[0] for x in letters], [x[0] for x in delays], none


def _appended(tokenizer: Any, start: str, more: str) -> list[int]:
    """The tokens that `more` adds behind `start`; none where the two melt into one another."""
    before, both = _encode(tokenizer, start), _encode(tokenizer, start + more)
    return both[len(before) :] if both[: len(before)] == before else []


def _end(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the model's tokenizer names no token that ends a text (eos_token); give another model"
        )
    return int(tokenizer.eos_token_id)


def _words(size: int, end: int, config: Any) -> Any:
    """A tokenizer that reads `TextReading.text` back: its words are the numbers of tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    size = max(size, int(config.vocab_size))
    made = Tokenizer(WordLevel({_word(i): i for i in range(size)}, unk_token=_word(end)))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=_word(end), pad_token=_word(end))


def _word(token: int) -> str:
    """A token's number, as long as any other: the one that ends a text is looked for inside words too."""
    return f"{token:07d}"
