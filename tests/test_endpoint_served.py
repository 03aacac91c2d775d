"""A small local model behind the real `transformers serve`, asked over HTTP as any endpoint is.

The model is one of Qwen3's kind with a BPE tokenizer, made on the spot. Its weights are random, but its head
knows letters only: else it would answer nothing that can be read, and reading it is what is tested.
`transformers serve` gives no log-probabilities; those come from a second server around the same model,
whose answers are checked against the OpenAI client's own types.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_text_model import write_text_model

from env.splits import Split, chrono
from env.timeline import Event, Timeline, collapse
from rlmemo.model.text_prompt import LETTERS
from rlmemo.policies.endpoint import EndpointPolicy
from rlmemo.policies.endpoint_calls import Question, read_text
from rlmemo.policies.endpoint_options import Asking
from rlmemo.policies.registry import make_policy

pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
pytestmark = pytest.mark.slow

ASKING = Asking(max_calls=200, at_once=2, timeout_s=60)


def recording() -> tuple[Timeline, Split]:
    rng = np.random.default_rng(3)
    names = [f"App{k}" for k in range(7)]
    events, at = [], 1.7e9
    for k in range(110):
        at += float(rng.integers(30, 4000))
        events.append(Event(at, names[(k * k + int(rng.integers(0, 2))) % 7]))
    timeline = collapse(Timeline.from_events("ada", events))
    return timeline, chrono([timeline])


def questions(shots: int = 0) -> list[Question]:
    """What is asked at every decision of the test part."""
    timeline, split = recording()
    policy = EndpointPolicy.__new__(EndpointPolicy)
    from rlmemo.policies.few_shot import Examples

    policy._examples, policy._texts, policy._reads = Examples(shots), {}, None
    policy._examples.fit([timeline], split)
    return [policy._question(timeline, int(j) - 1) for j in split.test[0]]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that answers in letters, other ones to other questions: at random but for its head."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = write_text_model(tmp_path_factory.mktemp("tiny"), chat=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = [tokenizer.encode(f" {x}") for x in LETTERS]
    assert all(len(x) == 1 for x in answers)
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings, config.initializer_range = False, 0.4
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight.mul_(8.0)  # looks at few tokens: other questions, other answers
        model.lm_head.weight.zero_()
        model.lm_head.weight[[x[0] for x in answers]] = torch.randn(len(answers), config.hidden_size)
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `transformers serve` with the model loaded."""
    import urllib.error
    import urllib.request

    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model_folder)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            stdout=out, stderr=out, start_new_session=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.5)
        else:
            pytest.fail("transformers serve did not start: " + log.read_text()[-3000:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


class Local:
    """The same model in this process: what it says greedily, and how likely each first token is."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()

    def ids(self, asked: list[dict[str, str]] | str) -> Any:
        if isinstance(asked, str):
            return self.tokenizer(asked, return_tensors="pt")["input_ids"]
        made = self.tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return made["input_ids"]

    def say(self, asked: list[dict[str, str]] | str, tokens: int = 16) -> tuple[str, list[Any]]:
        """(text, per generated token its log-probabilities over the vocabulary)."""
        import torch

        with torch.inference_mode():
            out = self.model.generate(
                self.ids(asked), max_new_tokens=tokens, do_sample=False, return_dict_in_generate=True,
                output_logits=True,
            )  # fmt: skip
        new = out.sequences[0, -len(out.logits) :]
        return (
            self.tokenizer.decode(new, skip_special_tokens=True),
            [(int(x), row[0].float().log_softmax(-1)) for x, row in zip(new, out.logits, strict=True)],
        )


@pytest.fixture(scope="module")
def local(model_folder: Path) -> Local:
    return Local(model_folder)


@pytest.mark.parametrize("shots", [0, 2])
def test_what_a_server_says_is_what_the_model_says(
    served: str, model_folder: Path, local: Local, shots: int
) -> None:
    """Every test decision's list over HTTP is the greedy answer of the same model in this process."""
    timeline, split = recording()
    asking = Asking(**{**vars(ASKING), "shots": shots})
    policy = make_policy(f"openai:{served}#{model_folder}", asking)
    assert isinstance(policy, EndpointPolicy)
    policy.fit([timeline], split)
    rows = split.test[0] - 1
    ranking = policy.rank(timeline, rows)
    candidates = policy._text(timeline).slates.candidates
    answered = set()
    for d, (i, question) in enumerate(zip(rows, questions(shots), strict=True)):
        text, _ = local.say(question.messages())
        said = read_text(text, question.places)
        expected = candidates[i, list(said.said)].tolist()
        assert ranking.targets[d, : len(expected)].tolist() == expected, text
        assert (ranking.targets[d, len(expected) :] == -1).all()
        answered.add(said.said)
    assert len(answered) > 6  # what it says depends on what it is asked
    assert "no log-probabilities" in policy.note


def test_a_text_is_continued(served: str, model_folder: Path, local: Local) -> None:
    timeline, split = recording()
    policy = make_policy(f"openai:{served}/completions#{model_folder}", ASKING)
    assert isinstance(policy, EndpointPolicy)
    rows = split.test[0][:4] - 1
    ranking = policy.rank(timeline, rows)
    for d, (i, question) in enumerate(zip(rows, questions(), strict=False)):
        said = read_text(local.say(question.text())[0], question.places).said
        expected = policy._text(timeline).slates.candidates[i, list(said)].tolist()
        assert [x for x in ranking.targets[d].tolist() if x >= 0] == expected
        share = ranking.probability[d, : len(expected)]
        np.testing.assert_allclose(share, 0.5 / 3, rtol=1e-6)  # nothing was fitted


def test_the_command_lines_ask_a_server(
    served: str, model_folder: Path, tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    timeline, split = recording()
    lines = [f"ada,{t},{timeline.names[x]}" for t, x in zip(timeline.t, timeline.target, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["user,t,target", *lines]) + "\n")
    spec = f"openai:{served}#{model_folder}"
    done = cli("rlmemo.benchmark", "--timelines", "a.csv", "--tz", "UTC", "--policies", f"markov1,{spec}",
               "--draws", "20", "--json", "a.json", "--answers", "kept.jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())["policies"][f"openai:{model_folder.name}"]
    assert 0 <= found["hr@1"]["value"] <= 1
    assert found["hr@5"]["value"] > 0
    assert found["p50_ms"]["value"] > 2  # an answer over HTTP, not one from memory
    assert "calls" in done.stdout
    asked = len(split.validation[0]) + len(split.test[0])
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == asked
    done = cli("rlmemo.predict", "--timelines", "a.csv", "--tz", "UTC", "--policy", spec, "--db", "a.db",
               "--n", "2", "--still", "--answers", "kept.jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 new predictions" in done.stdout


def test_another_model_than_the_servers_is_refused_in_its_words(served: str) -> None:
    from env.errors import InputError

    timeline, _ = recording()
    with pytest.raises(InputError, match=r"refuses the question: 400 .*pinned to"):
        make_policy(f"openai:{served}#another", ASKING).rank(timeline, np.array([50]))


@pytest.fixture(scope="module")
def telling(local: Local) -> Iterator[str]:
    """A server around the same model that gives log-probabilities, in both APIs."""
    import torch
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.tell({"object": "list", "data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat = "messages" in body
            with lock:
                text, steps = local.say(body["messages" if chat else "prompt"], body["max_tokens"])
            tops = [torch.topk(row, body["top_logprobs"] if chat else body["logprobs"]) for _, row in steps]
            words = [local.tokenizer.decode([x]) for x, _ in steps]
            named = [
                [(local.tokenizer.decode([int(i)]), float(v)) for v, i in zip(*top, strict=True)]
                for top in tops
            ]
            given = [float(row[x]) for x, row in steps]
            base = {"id": "1", "created": 1, "model": "tiny"}
            if chat:
                content = [
                    {"token": w, "logprob": g, "bytes": None,
                     "top_logprobs": [{"token": t, "logprob": v, "bytes": None} for t, v in top]}
                    for w, g, top in zip(words, given, named, strict=True)
                ]  # fmt: skip
                choice = {
                    "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text},
                    "logprobs": {"content": content, "refusal": None},
                }  # fmt: skip
                made = {**base, "object": "chat.completion", "choices": [choice]}
                self.tell(ChatCompletion.model_validate(made).model_dump())
                return
            logprobs = {
                "tokens": words, "token_logprobs": given, "top_logprobs": [dict(x) for x in named],
                "text_offset": [0] * len(words),
            }  # fmt: skip
            choice = {"index": 0, "finish_reason": "stop", "text": text, "logprobs": logprobs}
            made = {**base, "object": "text_completion", "choices": [choice]}
            self.tell(Completion.model_validate(made).model_dump())

        def tell(self, what: dict[str, Any]) -> None:
            data = json.dumps(what).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("api", ["", "/completions"])
def test_log_probabilities_become_the_ranking(telling: str, local: Local, api: str) -> None:
    """Probabilities are those of the model's own first token, over its letters and `none`."""
    timeline, split = recording()
    policy = make_policy(f"openai:{telling}{api}#tiny", ASKING)
    assert isinstance(policy, EndpointPolicy)
    policy.fit([timeline], split)
    rows = split.test[0][:6] - 1
    ranking = policy.rank(timeline, rows)
    candidates = policy._text(timeline).slates.candidates
    for d, (i, question) in enumerate(zip(rows, questions(), strict=False)):
        _, steps = local.say(question.text() if api else question.messages())
        top = steps[0][1].topk(20)
        mass = np.zeros(question.places + 1)
        for logp, token in zip(*top, strict=True):
            word = local.tokenizer.decode([int(token)]).strip()
            if word in LETTERS[: question.places]:
                mass[LETTERS.index(word)] += np.exp(float(logp))
            elif word and "none".startswith(word):
                mass[-1] += np.exp(float(logp))
        p = dict(zip(ranking.targets[d].tolist(), ranking.probability[d].tolist(), strict=True))
        for place in range(question.places):
            target = int(candidates[i, place])
            assert p.get(target, 0.0) == pytest.approx(mass[place] / mass.sum(), abs=1e-4)
        assert ranking.none[d] == pytest.approx(mass[-1] / mass.sum(), abs=1e-4)
        assert (np.diff(ranking.probability[d]) <= 1e-7).all()
    assert policy.endpoint.calls == len(policy._known)
