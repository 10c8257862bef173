"""KServe's own server around the benchmark's classes; run by the Python of `.venvs/kserve`:

python _transformer_kserve.py Echo|Slow|Timed|Blocking --model_name m --http_port P --grpc_port G \\
    [--predictor_host H --predictor_protocol v1|v2|grpc-v2]
"""

import sys

import _transformer_hooks as hooks
from kserve import ModelServer
from kserve.model_server import args

if __name__ == "__main__":
    model = getattr(hooks, sys.argv[1])(args.model_name)
    ModelServer(http_port=args.http_port, grpc_port=args.grpc_port, workers=1).start([model])
