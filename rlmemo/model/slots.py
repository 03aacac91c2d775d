"""How the embedded language model reads a moment: a fixed-length sequence of tokens, a plan as its answer.

    <bos> h4.0 g3.0 ... e:A e:= e:?  s190 q62 A:cold s4 q31 B:warm ...  R0:9 R1:14 ... <when> <leave> ...
    |---- the moment ----| |--history-| |------- the slate -------|     |--- memory --| |--- queries ---|

    ... R1 R0 <plan> A d1 C d0 <end>
        |------- the answer -------|

What is known of a candidate (`env.slate.slate`) becomes two tokens, so that a whole history of thousands of
events is read in one forward pass over `PROMPT_LENGTH` tokens: `s`, the kind of candidate it is (its leaf
in the tree of `rlmemo.model.codebook`), and `q`, the probability that it comes next by the boosted
trees of `rlmemo.model.scorer`, in steps of its log-odds; what those trees say of "none of these" stands
in the moment. A candidate's letter comes after its statistics, with what is in memory now
(cold, warm, loading): whoever points at the letter has read them. Targets appear as letters, best
first, never by name: the model learns how people repeat themselves, not what they open.

At `<when>` the model says how long it will be until the next opening (a token of `WHEN`); at `<plan>`
it begins a plan: pairs of a letter and a delay token, then `<end>`; nothing to prewarm is `<end>`
alone. The text form is the tokens joined by spaces, which our WordLevel tokenizer reads back exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from env.slate.slate import CONTEXT, SLATE_SIZE, Slates
from rlmemo.model.codebook import LEAVES, load_codebook
from rlmemo.model.residents import LEVELS, LISTED
from rlmemo.model.scorer import Scored, base_scorer
from rlmemo.model.thumbs_so_far import LEVELS as THUMBS
from rlmemo.model.thumbs_so_far import MOODS, NEUTRAL, NO_MOOD

DELAYS_S = (0.0, 30.0, 300.0, 1800.0)
WHEN_EDGES_S = (2.0, 5.0, 10.0, 20.0, 40.0, 90.0, 180.0, 420.0, 1200.0, 3600.0, 14400.0)
HISTORY = 3
STATES = ("cold", "warm", "loading")
_LOG = np.log1p
_MOMENT: tuple[tuple[str, tuple[tuple[str, tuple[float, ...]], ...]], ...] = (
    ("h", (("hour", (3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0)), ("weekday", (4.5,)))),
    ("g", (("log_gap", tuple(_LOG([2.0, 5, 10, 20, 60, 180, 600, 1800, 14400]))), ("bounce", (0.5,)))),
    ("n", (("new_rate", (0.02, 0.06, 0.12, 0.22)), ("miss_rate", (0.1, 0.2, 0.3, 0.45)))),
    (
        "c",
        (
            ("log_support1", tuple(_LOG([0.5, 3.5, 12.5, 50.5, 200.5]))),
            ("log_support2", tuple(_LOG([0.5, 3.5, 20.5]))),
            ("log_support3", tuple(_LOG([0.5, 4.5]))),
        ),
    ),
    ("p", (("pace", tuple(_LOG([8.0, 20, 45, 120]))), ("log_events", tuple(_LOG([50.0, 200, 800, 2500]))))),
    (
        "m",
        (("free", (0.02, 0.25, 0.6)), ("none_odds", (-4.0, -3.0, -2.25, -1.5, -0.75, 0.0, 0.75, 1.5, 2.5))),
    ),
)
ODDS_EDGES = np.linspace(-6.5, 4.6, 112)  # of `q`, log-odds; one step is a tenth

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:SLATE_SIZE])
DELAYS = tuple(f"d{i}" for i in range(len(DELAYS_S)))
WHEN = tuple(f"in{i}" for i in range(len(WHEN_EDGES_S) + 1))
PAD, BOS, END, ASK_WHEN, ASK_PLAN, YES, NO = "<pad>", "<bos>", "<end>", "<when>", "<plan>", "<yes>", "<no>"
ASK_LEAVE, NOBODY, NO_RESIDENT = "<leave>", "R-", "R-:"
NAMED = 2
"""Residents that a plan may name."""
RESIDENTS = tuple(f"R{i}" for i in range(LISTED))
_EVENTS = ("e:-", "e:?", "e:=", *(f"e:{x}" for x in LETTERS))


def _names(groups: tuple[tuple[str, tuple[tuple[str, tuple[float, ...]], ...]], ...]) -> list[list[str]]:
    return [
        [prefix + ".".join(map(str, levels)) for levels in product(*(range(len(e) + 1) for _, e in parts))]
        for prefix, parts in groups
    ]


_MOMENT_NAMES = _names(_MOMENT)
_MOMENT_EDGES = [[(name, np.asarray(edges, np.float32)) for name, edges in parts] for _, parts in _MOMENT]
_STAT_NAMES = [[f"s{leaf}" for leaf in range(LEAVES)], [f"q{level}" for level in range(len(ODDS_EDGES) + 1)]]
_EMPTY = ("s-", "q-")
_SHOWN = tuple(f"{letter}:{state}" for letter in LETTERS for state in STATES)
SAID_OF = {
    f"{letter}:cold:v{level}": f"{letter}:cold"
    for letter in LETTERS for level in range(THUMBS) if level != NEUTRAL
} | {f"{BOS}:m{mood}": BOS for mood in range(MOODS) if mood != NO_MOOD}  # fmt: skip
"""Tokens in which thumbs are read, and what stands in their place where nothing was said."""
VOCABULARY: tuple[str, ...] = (
    PAD, BOS, END, ASK_WHEN, ASK_PLAN, YES, NO, *LETTERS, *DELAYS, *WHEN, *_EVENTS, *_SHOWN, *_EMPTY,
    *(x for names in _MOMENT_NAMES for x in names), *(x for names in _STAT_NAMES for x in names),
    ASK_LEAVE, NOBODY, *RESIDENTS, NO_RESIDENT,
    *(f"{x}:{level}" for x in RESIDENTS for level in range(LEVELS)), *SAID_OF,
)  # fmt: skip
ID = {token: i for i, token in enumerate(VOCABULARY)}
LETTER_IDS = np.array([ID[x] for x in LETTERS])
DELAY_IDS = np.array([ID[x] for x in DELAYS])
WHEN_IDS = np.array([ID[x] for x in WHEN])
END_ID = ID[END]
RESIDENT_IDS = np.array([ID[x] for x in RESIDENTS])
NOBODY_ID, PLAN_ID = ID[NOBODY], ID[ASK_PLAN]
COLD_IDS = np.array([[ID.get(f"{x}:cold:v{k}", ID[f"{x}:cold"]) for k in range(THUMBS)] for x in LETTERS])
"""The token of a cold candidate at each place, by what was said of it, int64 [SLATE_SIZE, THUMBS]."""
_MOODS = np.array([ID.get(f"{BOS}:m{mood}", ID[BOS]) for mood in range(MOODS)])

_PER_CANDIDATE = len(_EMPTY) + 1
_SLATE_START = 1 + len(_MOMENT) + HISTORY
_MEMORY_START = _SLATE_START + SLATE_SIZE * _PER_CANDIDATE
PROMPT_LENGTH = _MEMORY_START + LISTED + 2 + NAMED + 1
WHEN_AT, LEAVE_AT, PLAN_AT = PROMPT_LENGTH - NAMED - 3, PROMPT_LENGTH - NAMED - 2, PROMPT_LENGTH - 1
"""Places of `<when>`, `<leave>` and `<plan>`."""
MEMORY_AT = _MEMORY_START + np.arange(LISTED)
PLAIN_TOKENS = ID[ASK_LEAVE]
"""Tokens of a vocabulary in which nothing is said of memory: the first base's."""
# Places of the letters of the candidates: pre-training also asks there "is it this one?".
CANDIDATE_ENDS = _SLATE_START + np.arange(1, SLATE_SIZE + 1) * _PER_CANDIDATE - 1


def encode_prompts(
    slates: Slates,
    target: np.ndarray,
    rows: np.ndarray,
    warm: np.ndarray | None = None,
    free: np.ndarray | None = None,
    here: np.ndarray | None = None,
    residents: np.ndarray | None = None,
) -> np.ndarray:
    """Prompts of the decisions `rows` of one timeline, int64 [D, PROMPT_LENGTH].

    slates: the timeline's slates, of size SLATE_SIZE; where they are not `Scored`, the shipped scorer is
    asked. target: its target column, int32 [n] (only entries up to each row are read). rows: int64 [D].
    here: the rows of `slates` in which the decisions stand, int64 [D] (None: as in the timeline). warm:
    [D, SLATE_SIZE], 0 cold, 1 warm, 2 loading (None: all cold). free: share of the memory budget that is
    free, [D] (None: full). residents: levels of those in memory, int64 [D, LISTED], -1 for nobody, as of
    `rlmemo.model.residents` (None: nobody).
    Raises ValueError when the slates have another size.
    """
    if slates.candidates.shape[1] != SLATE_SIZE:
        raise ValueError(f"the model reads slates of {SLATE_SIZE}, these have {slates.candidates.shape[1]}")
    rows = np.asarray(rows, dtype=np.int64)
    n = len(rows)
    here = rows if here is None else here
    candidates = slates.candidates[here]
    out = np.empty((n, PROMPT_LENGTH), dtype=np.int64)
    out[:, 0] = ID[BOS]

    moment = {name: slates.context[here, i] for i, name in enumerate(CONTEXT)}
    moment["free"] = np.zeros(n) if free is None else np.asarray(free)
    log_p = slates.score[here] if isinstance(slates, Scored) else base_scorer().log_p(slates, here)
    odds = log_odds(log_p)
    moment["none_odds"] = odds[:, -1]
    for place, (parts, names) in enumerate(zip(_MOMENT_EDGES, _MOMENT_NAMES, strict=True)):
        level = np.zeros(n, dtype=np.int64)
        for name, edges in parts:
            level = level * (len(edges) + 1) + edges.searchsorted(moment[name], side="right")
        out[:, 1 + place] = ID[names[0]] + level

    current = target[rows]
    for back in range(1, HISTORY + 1):
        before = rows - back
        known = before >= 0
        opened = np.where(known, target[np.maximum(before, 0)], -2)
        match = candidates == opened[:, None]
        token = np.where(match.any(1), ID["e:A"] + match.argmax(1), ID["e:?"])
        token = np.where(opened == current, ID["e:="], token)
        out[:, len(_MOMENT) + back] = np.where(known, token, ID["e:-"])

    block = out[:, _SLATE_START:_MEMORY_START].reshape(n, SLATE_SIZE, _PER_CANDIDATE)
    empty = candidates < 0
    leaf = load_codebook().tokens(statistics(slates, here)).reshape(n, SLATE_SIZE)
    level = np.searchsorted(ODDS_EDGES, odds[:, :-1], side="right")
    for place, tokens in enumerate((leaf, level)):
        block[:, :, place] = np.where(empty, ID[_EMPTY[place]], ID[_STAT_NAMES[place][0]] + tokens)
    state = np.zeros((n, SLATE_SIZE), np.int64) if warm is None else np.asarray(warm, dtype=np.int64)
    block[:, :, -1] = ID[_SHOWN[0]] + len(STATES) * np.arange(SLATE_SIZE) + state
    out[:, _SLATE_START:_MEMORY_START] = block.reshape(n, -1)
    out[:, MEMORY_AT] = memory_ids(np.full((n, LISTED), -1) if residents is None else residents)
    out[:, WHEN_AT], out[:, LEAVE_AT], out[:, PLAN_AT] = ID[ASK_WHEN], ID[ASK_LEAVE], ID[ASK_PLAN]
    out[:, LEAVE_AT + 1 : PLAN_AT] = NOBODY_ID
    return out


def with_thumbs(prompts: np.ndarray, levels: np.ndarray, mood: np.ndarray) -> np.ndarray:
    """Prompts that read what was said so far, of candidates that are cold and of the moment; levels int64
    [D, SLATE_SIZE] and mood int64 [D]: as of `rlmemo.model.thumbs_so_far`."""
    out = prompts.copy()
    shown = out[:, CANDIDATE_ENDS]
    cold = shown == np.array([ID[f"{letter}:cold"] for letter in LETTERS])
    out[:, CANDIDATE_ENDS] = np.where(cold, COLD_IDS[np.arange(SLATE_SIZE)[None], levels], shown)
    out[:, 0] = _MOODS[mood]
    return out


def plain(prompts: np.ndarray) -> np.ndarray:
    """Prompts without what is in memory and who leaves: what the first base was trained on."""
    return np.delete(prompts, [*MEMORY_AT, *range(LEAVE_AT, PLAN_AT)], axis=1)


def memory_ids(residents: np.ndarray) -> np.ndarray:
    """The tokens of residents, int64 [D, LISTED]; residents: their levels, see `encode_prompts`."""
    shown = ID[f"{RESIDENTS[0]}:0"] + LEVELS * np.arange(LISTED) + residents
    return np.where(residents >= 0, shown, ID[NO_RESIDENT])


def listed(prompts: np.ndarray) -> np.ndarray:
    """Which residents prompts list, bool [D, LISTED]: those that a plan may name."""
    found: np.ndarray = prompts[:, MEMORY_AT] != ID[NO_RESIDENT]
    return found


def log_odds(log_p: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of log-probabilities, float64."""
    log_p = np.asarray(log_p, np.float64)
    return log_p - np.log(np.maximum(-np.expm1(log_p), 1e-9))


def statistics(slates: Slates, rows: np.ndarray) -> np.ndarray:
    """What the tree of the codebook looks at, float32 [D * SLATE_SIZE, len(FEATURES) + len(CONTEXT)]."""
    size = slates.candidates.shape[1]
    moment = np.repeat(slates.context[rows][:, None], size, axis=1)
    return np.concatenate([slates.features[rows], moment], axis=2).reshape(len(rows) * size, -1)


def free_level(free: np.ndarray) -> np.ndarray:
    """Bin of the free share of memory as the prompt tells it, int64."""
    return dict(_MOMENT_EDGES[-1])["free"].searchsorted(np.asarray(free), side="right")


def plan_ids(picks: Sequence[tuple[int, int]], naming: bool = False) -> list[int]:
    """Tokens of a plan: (place in the slate, delay bucket) pairs in slate order, then END. A plan is a
    set, so it is always written in the order of the slate: one plan, one sequence.

    naming: the tokens behind `<leave>`: who leaves first, given as (-1 - resident, turn), `<plan>`, and
    those.
    """
    ids: list[int] = []
    if naming:
        order = [-1 - resident for resident, turn in sorted(picks, key=lambda x: x[1]) if resident < 0]
        ids = [*RESIDENT_IDS[order].tolist(), *[NOBODY_ID] * (NAMED - len(order)), ID[ASK_PLAN]]
    for place, delay in sorted(picks):
        if place >= 0:
            ids += [int(LETTER_IDS[place]), int(DELAY_IDS[delay])]
    return [*ids, END_ID]


def decode_plan(ids: Sequence[int], naming: bool = False) -> list[tuple[int, int]]:
    """The picks that `plan_ids` wrote, and before them who leaves first where it was `naming`. Raises
    ValueError for anything that is not a valid plan."""
    picks: list[tuple[int, int]] = []
    rest = list(ids)
    if naming:
        said = [int(x) - int(RESIDENT_IDS[0]) for x in rest[:NAMED] if x != NOBODY_ID]
        if (
            rest[NAMED] != ID[ASK_PLAN]
            or any(not 0 <= x < LISTED for x in said)
            or len(set(said)) < len(said)
        ):
            raise ValueError(f"not a plan: {text_of(list(ids))}")
        picks, rest = [(-1 - x, turn) for turn, x in enumerate(said)], rest[NAMED + 1 :]
    while rest and rest[0] != END_ID:
        if len(rest) < 2 or rest[0] not in LETTER_IDS or rest[1] not in DELAY_IDS:
            raise ValueError(f"not a plan: {text_of(list(ids))}")
        picks.append((int(rest[0] - LETTER_IDS[0]), int(rest[1] - DELAY_IDS[0])))
        rest = rest[2:]
    if not rest or len({p for p, _ in picks}) != len(picks):
        raise ValueError(f"not a plan: {text_of(list(ids))}")
    return picks


def delay_bucket(gap_s: np.ndarray) -> np.ndarray:
    """The latest delay bucket that still starts before an opening `gap_s` seconds away, int64."""
    return np.searchsorted(np.asarray(DELAYS_S), gap_s, side="right") - 1


def when_bucket(gap_s: np.ndarray) -> np.ndarray:
    """Bucket of `WHEN` for a gap in seconds, int64."""
    return np.searchsorted(np.asarray(WHEN_EDGES_S), gap_s, side="right")


def text_of(ids: np.ndarray | list[int]) -> str:
    """The tokens joined by spaces."""
    return " ".join(VOCABULARY[int(i)] for i in ids)
