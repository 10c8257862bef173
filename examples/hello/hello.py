"""A model is any class with the hooks it needs; nothing of Turnout's is imported."""


class Hello:
    """Greets every instance by name."""

    def load(self) -> None:
        self.greeting = "Hello"

    def predict(self, payload: dict) -> dict:
        """KServe's V1 body in, its answer out."""
        return {"predictions": [f"{self.greeting}, {name}!" for name in payload["instances"]]}
