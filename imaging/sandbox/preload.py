"""Imported once by the process that workers are forked from, so that they start in milliseconds.

What is imported here is shared by all of them. Each works on one picture at a time, and there are
as many as shall work at once: decoders with threads of their own would only take more memory.
"""

import gc
import os
import signal

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VIPS_CONCURRENCY"):
    os.environ.setdefault(_name, "1")

import imaging.sources.storage  # noqa: E402
import imaging.worker_tasks  # noqa: E402, F401
import schemas.events  # noqa: E402, F401

# A signal to the parent's whole process group is the parent's to answer: it may want to finish what
# it has begun. This process ends when nobody is left who could ask it for a worker.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
gc.collect()
# A collection would write into every page it looks at, and so make a copy of it for each worker.
gc.freeze()
