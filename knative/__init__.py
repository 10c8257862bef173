"""Source grammars, compiler, emitter, cluster client, local engine and command line.

Layers, top to bottom: cli, then local and cluster, then compiler, resources, names and keys, api.
"""
