"""A randomly initialised base model of the embedded one's kind, small enough for tests, in hub format."""

from __future__ import annotations

from pathlib import Path

from rlmemo.model import slots


def write_tiny_base(path: Path, *, hidden: int = 16, layers: int = 1, seed: int = 0) -> Path:
    """Write config, weights and tokenizer to `path`."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(slots.VOCABULARY),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=hidden // 2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=slots.ID[slots.BOS],
            eos_token_id=slots.END_ID,
            pad_token_id=slots.ID[slots.PAD],
            use_cache=False,
        )
    ).float()
    model.save_pretrained(path)
    words = Tokenizer(WordLevel(dict(slots.ID), unk_token=slots.PAD))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=slots.BOS,
        eos_token=slots.END,
        pad_token=slots.PAD,
    ).save_pretrained(path)
    return path
