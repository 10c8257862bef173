"""`turnout demo`: the example pipelines on real photographs, from zero, on this machine.

Real parts only: archives from torch-model-archiver, a SeaweedFS S3 server, the compiled manifests
on the local engine. `story` tells it step by step; every other module is one prop. Nothing of it
is imported by the units or by the other verbs.
"""
