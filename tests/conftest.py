"""What every test runs under: no hub, no progress bars, one thread."""

from __future__ import annotations

import os

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false"
)
