"""The Ray cluster: its evaluator, and the connection that devices of its nodes use as well."""

import os

# Ray reads this once, when it is imported. The death of a worker is the failure of a trial, which
# says why; what is kept from the console are Ray's own paragraphs about it.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    "^A worker died or was killed while executing|killed due to memory pressure",
)
