"""How good a policy is: one judgement for everybody."""
