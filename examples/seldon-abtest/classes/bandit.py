"""A router that learns: an epsilon-greedy bandit over its branches. Plain Python, no SDK.

Most requests go to the branch whose answers were worth most so far; every tenth tries any branch,
so that a better one is found. What an answer was worth comes back as feedback.
"""

import random


class Bandit:
    def __init__(self, branches=2, epsilon=0.1):
        self.epsilon = epsilon
        self.tries = [0] * branches
        self.rewards = [0.0] * branches

    def route(self, X, names):
        """The number of the branch that answers this request."""
        if random.random() < self.epsilon:
            return random.randrange(len(self.tries))
        worth = self.worth()
        return worth.index(max(worth))

    def send_feedback(self, X, names, reward, truth, routing=None):
        """`routing` is the branch that gave the answer which this reward is for."""
        if routing is not None and 0 <= routing < len(self.tries):
            self.tries[routing] += 1
            self.rewards[routing] += reward

    def worth(self):
        """Mean reward of every branch; one that nobody has judged yet is worth trying."""
        return [
            reward / tries if tries else 1.0
            for reward, tries in zip(self.rewards, self.tries, strict=True)
        ]

    def health_status(self):
        """GET /api/v1.0/status/bandit: what it has learned."""
        return {"worth": self.worth(), "judged": self.tries}
