"""Trains three classifiers of iris flowers in a second and writes them where the manifests look
for them: `linear/` and `forest/` for SKLEARN_SERVER, `classes/` with the user classes and a model
that one of them reads.

    python examples/seldon-abtest/train.py [FOLDER]
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

CLASSES = Path(__file__).parent / "classes"


def write(folder: Path) -> dict[str, float]:
    """Train and write; returns each model's accuracy on unseen flowers."""
    features, labels = load_iris(return_X_y=True)
    seen, unseen, known, truth = train_test_split(
        features, labels, test_size=0.3, random_state=3, stratify=labels
    )
    models: dict[str, Any] = {
        "linear": LogisticRegression(max_iter=500),
        "forest": RandomForestClassifier(n_estimators=20, random_state=0),
        "neighbours": KNeighborsClassifier(n_neighbors=7),
    }
    for name, model in models.items():
        model.fit(seen, known)
        place = folder / ("classes/neighbours.joblib" if name == "neighbours" else name)
        if place.suffix != ".joblib":
            place /= "model.joblib"
        place.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, place)
    for source in CLASSES.glob("*.py"):
        shutil.copy(source, folder / "classes")
    return {name: float(model.score(unseen, truth)) for name, model in models.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, accuracy in write(target).items():
        print(f"{name}: {accuracy:.3f} right on unseen flowers")
