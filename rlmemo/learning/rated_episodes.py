"""Ratings in episodes: what PPO is credited gets the reward's rating term, as plans scored by replay do."""

from __future__ import annotations

import math

import numpy as np

from reward import Reward
from rlmemo.learning.rating_feedback import Feedback
from rlmemo.learning.rollout import Field, Moments, Spoken
from rlmemo.learning.training_data import TrainingData


class RatedField(Field):
    """A field whose credits have, for every plan, what a thumb counts times its expected rating."""

    def __init__(
        self, data: TrainingData, reward: Reward, feedback: Feedback, half_life_s: float = math.inf
    ) -> None:
        super().__init__(data, reward, half_life_s)
        self.feedback = feedback

    def credit(self, moments: Moments, said: Spoken, first_pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Field.credit`. A place that the policy would hardly pick stays at 0."""
        reward, ahead = super().credit(moments, said, first_pick)
        place, delay = said.place, said.delay
        approval, thumb = self.feedback.approval, self.feedback.per_thumb
        if approval is None:
            return reward, ahead
        delays = np.asarray(self.data.world.delays)
        for user in np.unique(moments.user):
            at = moments.user == user
            timeline, plain = self.data.timelines[user], self.data.plain[user]
            index = moments.index[at]
            candidates = self.data.slates[user].candidates[index]
            some = place[at] >= 0
            target = np.where(
                some, np.take_along_axis(candidates, np.maximum(place[at], 0), axis=1), -1
            ).astype(np.int32)
            when = np.where(some, delays[np.where(some, delay[at], 0)], 0.0)
            reward[at] += thumb * approval.expected(timeline, plain, index, target, when)
            size = ahead.shape[-1]
            alone = np.where(first_pick[at][:, :size] > 1e-3, candidates[:, :size], -1)
            flat = alone.reshape(-1, 1)
            rated = approval.expected(
                timeline, plain, np.repeat(index, size), flat, np.zeros(flat.shape)
            ).reshape(alone.shape)
            ahead[at] += np.where(alone >= 0, thumb * rated, 0.0)
        return reward, ahead


def field(
    data: TrainingData, reward: Reward, feedback: Feedback | None, half_life_s: float = math.inf
) -> Field:
    """The field to play on, with ratings where there are some."""
    if feedback is None or feedback.approval is None:
        return Field(data, reward, half_life_s)
    return RatedField(data, reward, feedback, half_life_s)
