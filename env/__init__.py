"""Timelines and the Gymnasium environment; importing it registers both, and nothing heavy."""

from __future__ import annotations

from gymnasium.envs.registration import register

register(id="rlmemo/Prewarm-v0", entry_point="env.gym.prewarm:PrewarmEnv")
register(id="rlmemo/Prewarm-v1", entry_point="env.gym.memory:MemoryEnv")
