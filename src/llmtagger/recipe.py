"""How a model is tuned: the settings that a result depends on, kept with each adapter."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """LoRA on every linear layer, AdamW, a warm-up and then a falling rate.

    The defaults were chosen by the held-out loss of SmolLM2-135M after 200 examples
    (benchmarks/README.md). Small batches make the most of few examples: more steps, same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(2, ge=1, le=50)
    rate: float = Field(1e-3, gt=0, description="highest learning rate")
    batch: int = Field(2, ge=1, description="examples a step")
    rank: int = Field(16, ge=1, description="of the adapter's matrices")
    alpha: int = Field(32, ge=1, description="scale of the adapter, over the rank")
    warmup: float = Field(0.05, ge=0, le=1, description="share of the steps")
    longest: int = Field(1536, ge=64, description="tokens; longer examples are left out")
    patience: int = Field(2, ge=1, description="looks at the held-out loss without a gain")
    seed: int = 0
