"""Learned tokens before the moment: prefix tuning, P-tuning and prompt tuning for a model that only reads.

Whatever such an adapter learned, a model that only reads sees it as keys and values that stand in its cache
before the first real token: prefix tuning learns them outright, and those of learned embeddings
depend on nothing that comes later (attention is causal), so they are computed once. `install` puts them
before every reading, by a hook on the model's own transformer, whatever the architecture calls it
(`base_model`: `model` of a Llama, `transformer` of a GPT-2); the model stays what it was, and
`model(...)`, `model.base_model(...)` and whoever goes on from the cache that came back need no other code.
"""

from __future__ import annotations

from typing import Any

KeysAndValues = list[tuple[Any, Any]]
"""Per layer: keys and values, float [1, heads, tokens, head size]."""


def keys_and_values(prompted: Any) -> KeysAndValues:
    """What the active adapter of `prompted` (a peft model of a prompt-learning kind) puts before a text."""
    import torch
    from peft import PeftType

    with torch.inference_mode():
        made = prompted.get_prompt(batch_size=1)
        if prompted.active_peft_config.peft_type == PeftType.PREFIX_TUNING:
            cache = made
        else:
            base = prompted.get_base_model()
            made = made.to(prompted.word_embeddings.weight.dtype)
            cache = base.base_model(inputs_embeds=made, use_cache=True).past_key_values
    # cloned outside inference mode, so that a model with them can also be trained on
    return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]


class VirtualTokens:
    """A hook that puts learned keys and values before every text that a model begins to read.

    learned None leaves the model as it is, so that adapters can be swapped without touching the model.
    Who goes on from a cache that was begun here gives positions, and a mask where it gives one, that count
    the learned tokens, as `cache.get_seq_length()` does.
    """

    def __init__(self, model: Any, learned: KeysAndValues | None = None) -> None:
        self.learned = learned
        self._handle = model.base_model.register_forward_pre_hook(self._before, with_kwargs=True)

    def remove(self) -> None:
        """Take the hook away."""
        self._handle.remove()

    def _before(self, _: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        import torch
        from transformers import DynamicCache

        cache = given.get("past_key_values")
        if self.learned is None or (cache is not None and cache.get_seq_length() > 0):
            return args, given
        ids = args[0] if args else given.get("input_ids")
        if ids is None:
            ids = given["inputs_embeds"]
        rows, length = ids.shape[:2]
        tokens = self.learned[0][0].shape[2]
        cache = DynamicCache() if cache is None else cache
        for layer, (keys, values) in enumerate(self.learned):
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        given = {**given, "past_key_values": cache}
        mask = given.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.shape[1] == length:
            given["attention_mask"] = torch.cat([mask.new_ones(rows, tokens), mask], dim=1)
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + tokens
        return args, given


def install(model: Any, learned: KeysAndValues | None) -> VirtualTokens:
    """Put `learned` before everything that `model` (a causal language model) reads from now on."""
    hook = VirtualTokens(model, learned)
    model.virtual_tokens = hook
    return hook
