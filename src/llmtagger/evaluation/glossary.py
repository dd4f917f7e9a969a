"""What each part of a score is, in a sentence for a reader of a report."""

from __future__ import annotations

SIGNALS = {
    "bias": "where every tag starts, before anything is known: low, as most tags are wrong",
    "vote": "the share of similar products that carry the tag; similar by meaning",
    "lexical_vote": "the same, for products that share words with this one",
    "linear": "what a linear model, trained on your labelled products, predicts from the text",
    "literal": "1 if the tag's name or an alias stands in the text",
    "trust": "of the labelled products whose text mentions the tag, the share that carry it",
    "misspelt": "like trust, but for a tag whose name stands in the text with a wrong letter only",
    "extracted": "how likely a part of the title is a value of this key, even a value never seen",
    "rival": "how strong the strongest other value of the same key is; it usually speaks against",
    "name_similarity": "how close the tag's name is to the text in meaning",
    "name_lexical": "how many words the tag's name shares with the text",
    "prior": "the share of labelled products that carry the tag",
    "support": "how many labelled products carry the tag, on a logarithmic scale",
    "chosen": "1 if the language model chose the tag",
    "confidence": "how sure the language model was of the words it wrote",
    "tag": "what calibration adds for this very tag and its key",
    "bend": "the correction that calibration makes to the sum, so that 0.8 is right 8 times in 10",
}
