"""A combiner: the mean of what its children answer."""

import numpy as np


class Mean:
    def aggregate(self, Xs, names):
        return np.mean([np.asarray(X, dtype=float) for X in Xs], axis=0)

    def class_names(self):
        return ["setosa", "versicolor", "virginica"]
