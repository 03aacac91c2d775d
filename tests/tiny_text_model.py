"""A randomly initialised causal language model with a BPE tokenizer trained on the spot, in hub format."""

from __future__ import annotations

from pathlib import Path

from rlmemo.model.text_prompt import INSTRUCTION, LETTERS

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_text_model(path: Path, *, chat: bool = True, kind: str = "qwen3", seed: int = 0) -> Path:
    """Write config, weights and tokenizer to `path`. kind: qwen3, llama, gpt2; chat: with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    seen = [INSTRUCTION, *(f" {x}. wiki | after this 3 of 9 | opened 41 | 2h ago | cold\n" for x in LETTERS)]
    words.train_from_iterator(
        [*seen, "Answer: none C A F\n", "assistant user Example: Opened so far, oldest first:\n"] * 4,
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=special[2] if chat else special[0], pad_token=special[0]
    )
    if chat:
        tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(seed)
    if kind == "gpt2":
        small = GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=650, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        GPT2LMHeadModel(small).float().save_pretrained(path)
        return path
    made = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    config = made[0](
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    made[1](config).float().save_pretrained(path)
    return path
