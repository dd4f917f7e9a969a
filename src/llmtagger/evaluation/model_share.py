"""What the model's answers change in an evaluation, and what they cost."""

from __future__ import annotations

import numpy as np

from llmtagger.calibration import AskRule
from llmtagger.evaluation import metrics
from llmtagger.evaluation.harness import Kept, Outcome
from llmtagger.evaluation.interval import Interval
from llmtagger.evaluation.metrics import Bootstrap, Floats, Record


def rule_of(outcome: Outcome) -> AskRule | None:
    """The rule that was learnt; None where the model was not asked in learning."""
    return outcome.calibration.ask if outcome.calibration else None


def asked_side(outcome: Outcome) -> tuple[Kept, Bootstrap]:
    """The gold items and the draws of the test products that the model answered."""
    gold = [outcome.gold[row] for row in outcome.asked]
    groups = [outcome.test.groups[row] for row in outcome.asked]
    return gold, Bootstrap(groups, seed=outcome.config.seed)


def model_share(outcome: Outcome) -> Record | None:
    """What the model's answers change, on the test products that it was asked about."""
    if not outcome.asked:
        return None
    gold, boot = asked_side(outcome)
    helped = metrics.counts(outcome.helped, gold)
    alone = metrics.counts(outcome.alone, gold)
    added = boot.difference(helped, alone, metrics.f1)
    share = _share_asked(outcome)
    rule = rule_of(outcome)
    return {
        "added": added.record(),
        "products": len(gold),
        "share_asked": share,
        "f1_with": boot.interval(helped, metrics.f1).record(),
        "f1_without": boot.interval(alone, metrics.f1).record(),
        "f1_kept": _f1_kept(boot, alone, helped, outcome).record(),
        "seconds_saved": (1 - share) * len(outcome.test.products) * _model_seconds(outcome),
        "rule": rule.model_dump() if rule else None,
        "note": _note(outcome),
    }


def cost(outcome: Outcome) -> Record:
    """Tokens and seconds a product asked, and our own seconds a test product."""
    answers = [tagged.completion for tagged in outcome.answered if tagged.completion]
    count = max(len(answers), 1)
    return {
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers) / count,
        "completion_tokens": sum(answer.completion_tokens for answer in answers) / count,
        "model_seconds": _model_seconds(outcome),
        "own_seconds": outcome.spent.get("testing", 0.0) / max(len(outcome.test.products), 1),
    }


def _share_asked(outcome: Outcome) -> float:
    return len(outcome.wanted) / max(len(outcome.test.products), 1)


def _f1_kept(boot: Bootstrap, alone: Floats, helped: Floats, outcome: Outcome) -> Interval:
    """The F1 of asking only where the mode says so, as a share of that of asking everywhere."""
    asked = np.array([row in outcome.wanted for row in outcome.asked])
    mixed = np.where(asked[:, None], helped, alone)
    both = np.stack([mixed, helped], axis=-1)
    return boot.interval(
        both, lambda sums: metrics.f1(sums[..., 0]) / np.maximum(metrics.f1(sums[..., 1]), 1e-12)
    )


def _note(outcome: Outcome) -> str:
    rule = rule_of(outcome)
    if outcome.config.llm != "auto" or rule is None:
        return f"mode {outcome.config.llm}"
    if rule.margin == 0:
        return (
            f"on {rule.products} labelled products asking changed F1 by {rule.added[0]:+.3f} "
            f"[{rule.added[1]:+.3f}, {rule.added[2]:+.3f}], so `auto` does not ask"
        )
    return f"asked where a score is within {rule.margin:g} of the threshold"


def _model_seconds(outcome: Outcome) -> float:
    """Server time a product: answers are timed with others in flight, so that is divided out."""
    seconds = [tagged.completion.seconds for tagged in outcome.answered if tagged.completion]
    together = min(len(seconds), outcome.config.settings.engine.concurrency)
    return sum(seconds) / len(seconds) / together if seconds else 0.0
