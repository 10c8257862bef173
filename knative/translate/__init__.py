"""Foreign manifests (Seldon, old KServe spellings) to the shapes the compiler knows, with a
report."""
