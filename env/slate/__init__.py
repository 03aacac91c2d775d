"""The slate: which targets could come next, and what is known of each, from the past alone."""
