"""A model as a class: loads what lies beside it, says its classes, tags and metrics."""

from pathlib import Path

import joblib


class Neighbours:
    def load(self):
        self.model = joblib.load(Path(__file__).with_name("neighbours.joblib"))

    def predict(self, X, names):
        self.seen = len(X)
        return self.model.predict_proba(X)

    def class_names(self):
        return ["setosa", "versicolor", "virginica"]

    def metrics(self):
        return [{"type": "COUNTER", "key": "flowers", "value": self.seen}]
