"""Adapters of every kind (`--peft`): made for training, saved, trained on, and read with.

    lora, dora, adalora, ia3     change the linear layers; merged into the weights for reading
    prefix, p-tuning, prompt     stand before the text; read through `rlmemo.model.virtual_tokens`
    none                         no adapter: the whole model is trained, and saved where adapters are

A saved adapter is a folder with `adapter_config.json` and `adapter_model.safetensors` (peft's form), or, for
`none`, a model in hub format. Two kinds have more to them than peft saves: P-tuning's small network
(peft keeps only the tokens that it wrote) goes into `encoder.safetensors`, so that training can go on;
AdaLoRA's scores are kept in checkpoints, so that a resumed run shares out the same ranks.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rlmemo.learning.config import TrainConfig
from rlmemo.model.adapters import ENCODER, _whole, hushed, reading
from rlmemo.model.hub import PROMPTED, model_folder
from rlmemo.runs.user_adapters import kind_of

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What the low-rank kinds change. The head is left alone: TRL reads its weight directly, so an adapter on it
would never be trained."""
SCALED = ("k_proj", "v_proj", "down_proj")
"""What IA3 scales: keys, values, and what comes into the last layer of the feed-forward part."""
EXACT = "exact.safetensors"
ORTHOGONAL = 0.1
"""Weight of AdaLoRA's penalty for directions that are not at right angles (arXiv 2303.10512, eq. 4)."""


def peft_config(config: TrainConfig, model: Any, steps: int) -> Any:
    """peft's configuration for `config.peft`. steps: updates in all, over which AdaLoRA shares out ranks."""
    import peft

    text = model.config.get_text_config()
    linear: dict[str, Any] = {
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "target_modules": _linear(model),
        "task_type": "CAUSAL_LM",
    }
    tokens: dict[str, Any] = {"num_virtual_tokens": config.virtual_tokens, "task_type": "CAUSAL_LM"}
    if config.peft in ("lora", "dora"):
        layers = text.num_hidden_layers
        last = list(range(max(0, layers - config.lora_layers), layers)) if config.lora_layers else None
        return peft.LoraConfig(
            r=config.lora_rank, use_dora=config.peft == "dora", layers_to_transform=last, **linear
        )
    if config.peft == "adalora":
        # Half as many ranks again to begin with; a fifth of the updates before any is taken away, and the
        # last third with those that are left.
        return peft.AdaLoraConfig(
            init_r=config.lora_rank + (config.lora_rank + 1) // 2,
            target_r=config.lora_rank,
            tinit=steps // 5,
            tfinal=steps // 3,
            deltaT=max(1, steps // 50),
            total_step=max(2, steps),
            orth_reg_weight=ORTHOGONAL,
            **linear,
        )
    if config.peft == "ia3":
        scaled: dict[str, Any] = {"target_modules": list(SCALED), "feedforward_modules": [SCALED[-1]]}
        # where layers are called otherwise, peft knows those of many architectures
        return peft.IA3Config(**(scaled if _has(model, SCALED) else {}), task_type="CAUSAL_LM")
    if config.peft == "prefix":
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        # peft works these two out from the hidden size, which is wrong where heads * head_dim is another
        return peft.PrefixTuningConfig(num_attention_heads=heads, token_dim=heads * size, **tokens)
    if config.peft == "p-tuning":
        return peft.PromptEncoderConfig(encoder_hidden_size=text.hidden_size, **tokens)
    if config.peft == "prompt":
        return peft.PromptTuningConfig(**tokens)
    raise ValueError(f"no adapter of kind {config.peft}")


def _linear(model: Any) -> list[str] | str:
    """What the low-rank kinds change: `LINEAR`, or all linear layers where they are called otherwise."""
    return list(LINEAR) if _has(model, LINEAR) else "all-linear"


def _has(model: Any, parts: tuple[str, ...]) -> bool:
    return {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}.issuperset(parts)


def new_adapter(model: Any, config: TrainConfig, steps: int) -> Any:
    """`model` with a fresh adapter of kind `config.peft`, ready to be trained (for `none`, all of it)."""
    if config.peft == "none":
        model.requires_grad_(True)
        return model
    import torch
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(config.seed)
    if config.peft not in PROMPTED:
        return get_peft_model(model, peft_config(config, model, steps))
    vocabulary = model.get_input_embeddings().weight
    # Learned tokens begin as ones that the model knows: from noise they take far longer to mean anything.
    chosen = torch.randint(len(vocabulary), (1, config.virtual_tokens)).to(vocabulary.device)
    with torch.no_grad():
        cache = model.base_model(input_ids=chosen, use_cache=True).past_key_values
    made = get_peft_model(model, peft_config(config, model, steps))
    encoder = made.prompt_encoder["default"]
    with torch.no_grad():
        if config.peft == "prefix":
            both = torch.stack([x[0] for layer in cache.layers for x in (layer.keys, layer.values)])
            encoder.load_prompt_embeddings(both.permute(2, 0, 1, 3).reshape(config.virtual_tokens, -1))
        else:
            encoder.embedding.weight.copy_(vocabulary[chosen[0]])
    return made


def trainable(model: Any, path: Path) -> Any:
    """`model` with the saved adapter at `path`, to be trained further (for `none`, the model saved there)."""
    if kind_of(path) == "none":
        return _whole(model, path).requires_grad_(True)
    from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict

    if kind_of(path) not in PROMPTED:
        with hushed():
            return PeftModel.from_pretrained(model, str(path), is_trainable=True)
    # peft loads these for reading only: it does not keep what wrote the tokens, and we do
    settings = PeftConfig.from_pretrained(str(path))
    settings.inference_mode = False
    made = get_peft_model(model, settings)
    set_peft_model_state_dict(made, load_peft_weights(str(path), device=str(model.device)))
    if (path / ENCODER).is_file():
        made.prompt_encoder["default"].load_state_dict(load_file(path / ENCODER), strict=True)
    return made


def reference(model: Any, path: Path) -> Any:
    """The model that preferences are held to, where TRL cannot keep it as a second adapter, else None.

    AdaLoRA trains one adapter at a time, TRL's copy of IA3 is not one (it looks for weights named
    `.default.`, and IA3's end in it), and `none` has no adapter at all: for these, a frozen copy of the
    base `model` (which is not touched) with what is saved at `path`.
    """
    if kind_of(path) not in ("adalora", "ia3", "none"):
        return None
    return reading(copy.deepcopy(model), path).requires_grad_(False)


def save(model: Any, part: Path, base: str) -> None:
    """Write the adapter named "default" (or the whole model) into the folder `part`.

    base: what `--model` said, written as the adapter's base (never a path of this machine's own making).
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        model.save_pretrained(part)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (model_folder(base) / name).is_file():
                shutil.copy(model_folder(base) / name, part / name)
        return
    model.save_pretrained(str(part), selected_adapters=["default"], save_embedding_layers=False)
    (part / "README.md").unlink(missing_ok=True)  # the run's own model card says more
    file = part / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = base
    settings["inference_mode"] = True
    for name, value in settings.items():
        if isinstance(value, list):
            settings[name] = sorted(value)  # a set in peft: its order changes from process to process
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if settings["peft_type"] == "P_TUNING":
        state = model.prompt_encoder["default"].state_dict()
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part / ENCODER)


def count(model: Any) -> tuple[int, int]:
    """(parameters that are trained, all parameters)."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.parameters())


def arguments(kind: str) -> dict[str, Any]:
    """Arguments of TRL's configurations that `kind` insists on.

    transformers drops a key-value cache where activations are computed twice, and prefix tuning is one."""
    return {"gradient_checkpointing": False} if kind == "prefix" else {}


def attend(trainer: Any, kind: str, *, shares: bool = False) -> None:
    """Let a TRL trainer do what `kind` needs beside its updates; to be called before `train`.

    shares: AdaLoRA shares out ranks now (in its first training; later ones keep the ranks they find).
    """
    if kind == "adalora":
        _penalise(trainer)
        if shares:
            trainer.add_callback(_sharing())
    if kind in ("adalora", "p-tuning"):
        trainer.add_callback(_keeping())
        load = trainer._load_from_checkpoint

        def restore(path: str, model: Any = None) -> None:
            if kind != "adalora":  # its checkpoints hold trimmed weights, which do not fit in yet
                load(path, model)
            _restore(trainer.model if model is None else model, Path(path))

        trainer._load_from_checkpoint = restore


def _penalise(trainer: Any) -> None:
    """Add AdaLoRA's penalty to the loss; TRL's trainers make theirs from log-probabilities, without it."""
    import torch

    plain = trainer.compute_loss

    def compute_loss(model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
        found = plain(model, inputs, return_outputs=return_outputs, **more)
        if not model.training:
            return found
        terms = []
        for name, p in model.named_parameters():
            if p.requires_grad and p.numel() and (".lora_A." in name or ".lora_B." in name):
                square = p @ p.T if ".lora_A." in name else p.T @ p
                terms.append(torch.linalg.norm(square - torch.eye(len(square), device=p.device)))
        penalty = ORTHOGONAL * torch.stack(terms).mean() if terms else 0.0
        return (found[0] + penalty, found[1]) if return_outputs else found + penalty

    trainer.compute_loss = compute_loss


def _sharing() -> Any:
    from transformers import TrainerCallback

    class Sharing(TrainerCallback):
        """Has AdaLoRA share out ranks after every update, while the gradients are still there.

        transformers' Trainer does not do it, and peft's model does not do it by itself."""

        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            model.base_model.update_and_allocate(state.global_step + 1)

    return Sharing()


def _keeping() -> Any:
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):
        """Puts into every checkpoint what peft leaves out of it."""

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            tensors = {f"weight/{n}": p.detach().cpu().clone() for n, p in _own(model)}
            allocator = getattr(model.base_model, "rankallocator", None)
            pattern = None
            if allocator is not None:
                for part in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
                    found = getattr(allocator, part).items()
                    tensors |= {f"{part}/{n}": x.detach().cpu().clone() for n, x in found}
                pattern = model.peft_config["default"].rank_pattern
            save_file(
                tensors,
                Path(args.output_dir) / f"checkpoint-{state.global_step}" / EXACT,
                metadata={"rank_pattern": json.dumps(pattern, sort_keys=True)},
            )

    return Keeping()


def _own(model: Any) -> list[tuple[str, Any]]:
    """The parameters of the adapters, by name."""
    return [(n, p) for n, p in model.named_parameters() if "lora_" in n or "prompt_encoder" in n]


def _restore(model: Any, checkpoint: Path) -> None:
    import torch

    with safe_open(checkpoint / EXACT, "pt") as file, torch.no_grad():
        for name, p in _own(model):
            p.copy_(file.get_tensor(f"weight/{name}"))
        allocator = getattr(model.base_model, "rankallocator", None)
        if allocator is None:
            return
        for part in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            names = [n for n in file.keys() if n.startswith(part + "/")]  # noqa: SIM118 - no mapping
            setattr(allocator, part, {n.split("/", 1)[1]: file.get_tensor(n).to(model.device) for n in names})
        pattern = json.loads(file.metadata()["rank_pattern"])
        model.peft_config["default"].rank_pattern = pattern
