"""The embedded base model: weights, tokenizer, codebook and model card, shipped with the package."""
