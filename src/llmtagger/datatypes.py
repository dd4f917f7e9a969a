"""The records that flow through the pipeline, in the order in which they are made.

    Product ─ retrieve ─▶ Shortlist ─ render ─▶ Prompt ─ generate ─▶ Completion
            ─ parse ─▶ ParsedTags ─ score ─▶ ScoredTags ─ assemble ─▶ TaggedProduct

Every record is frozen. Similarities are cosines of unit vectors: larger is nearer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TagKind(StrEnum):
    """How a tag may come about: from the vocabulary, from the text, or freely."""

    CLOSED = "closed"
    SPAN = "span"
    FREE = "free"


class Strategy(StrEnum):
    """How the labelled products that a prompt shows are chosen from the neighbours."""

    SIMILAR = "similar"
    DIVERSE = "diverse"
    COVERING = "covering"


class Reason(StrEnum):
    """Why a tag is not kept: it waits for a person, or is dropped."""

    NOT_IN_VOCABULARY = "not_in_vocabulary"
    NOT_IN_SHORTLIST = "not_in_shortlist"
    NOT_IN_TEXT = "not_in_text"
    DUPLICATE = "duplicate"
    TOO_MANY = "too_many"
    BELOW_THRESHOLD = "below_threshold"
    RETIRED = "retired"
    MALFORMED = "malformed"
    NEW = "new"
    NO_ANSWER = "no_answer"
    BLOCKED = "blocked"


REVIEWS = "reviews"  # the field of a span that customers wrote


@dataclass(frozen=True, slots=True)
class Product:
    """One product of a catalogue; `tags` is None when nobody has labelled it.

    `reviews` are what customers wrote. They are no part of `fields` or `text`.
    """

    id: str
    title: str
    description: str = ""
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    reviews: tuple[str, ...] = ()
    tags: tuple[str, ...] | None = None
    lang: str = ""
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> Iterator[tuple[str, str]]:
        """Name and text of every field a tag may be read from, the shortest and surest first."""
        yield "title", self.title
        if self.brand:
            yield "brand", self.brand
        if self.category:
            yield "category", self.category
        for key, value in self.attributes.items():
            yield f"attributes.{key}", value
        if self.description:
            yield "description", self.description

    def sources(self) -> Iterator[tuple[str, str]]:
        """All texts that may mention a tag: the fields, then each review."""
        yield from self.fields()
        for review in self.reviews:
            yield REVIEWS, review

    def text(self) -> str:
        """All fields in one string, a field a line; what encoders and the lexical index see."""
        return "\n".join(text for _, text in self.fields())


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of the vocabulary. `key` is set for tags of the form `key=value`."""

    name: str
    id: str
    aliases: tuple[str, ...] = ()
    parent: str | None = None
    key: str | None = None
    kind: TagKind = TagKind.CLOSED
    labels: Mapping[str, str] = field(default_factory=dict)
    retired: bool = False

    def label(self, lang: str) -> str:
        """The tag as a shopper of that language reads it; its name where there is no label."""
        return self.labels.get(lang, self.name)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled product that resembles the one being tagged."""

    product: Product
    similarity: float


@dataclass(frozen=True, slots=True)
class Span:
    """A literal stretch of a product's text: the field it stands in and the text as written."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Extraction:
    """A stretch of a title that is taken for a value of a key, with a probability."""

    key: str
    span: Span
    probability: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """What experts say of one product, by the tags' positions in the vocabulary.

    `linear` holds estimates and `mentioned` the places where a tag's name stands in the text;
    `misspelt` are places of tags whose names stand there misspelt only. Of both, `trust` is the
    share of products that carry a tag they mention so, and `credibility` how much the best of the
    places says, compared with a title; all in 0..1. `extracted` are values, known or not. `unknown`
    tags are to be taken as if they were not in the vocabulary, and `own` carriers of a tag as if
    they were not labelled.
    """

    linear: Mapping[int, float]
    mentioned: Mapping[int, tuple[Span, ...]]
    trust: Mapping[int, float]
    credibility: Mapping[int, float] = field(default_factory=dict)
    extracted: tuple[Extraction, ...] = ()
    unknown: frozenset[int] = frozenset()
    own: Mapping[int, int] = field(default_factory=dict)
    misspelt: Mapping[int, tuple[Span, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tag that may fit, with everything retrieval knows of why.

    `votes` holds (neighbour id, similarity) of the neighbours that carry the tag. `spans` are
    places that name it, `misspelt` those of a name that stands nowhere spelt right. `linear`,
    `trust`, `credibility` and `extracted` are what experts estimate (see `Opinion`), `prior` is the
    tag's share among labelled products, all in 0..1.
    """

    tag: Tag
    votes: tuple[tuple[str, float], ...] = ()
    vote: float = 0.0
    lexical_vote: float = 0.0
    name_similarity: float = 0.0
    name_lexical: float = 0.0
    spans: tuple[Span, ...] = ()
    prior: float = 0.0
    linear: float = 0.0
    trust: float = 0.0
    credibility: float = 1.0
    extracted: float = 0.0
    misspelt: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Shortlist:
    """What retrieval found for one product: neighbours by similarity, candidates best first.

    The model is shown the first `offered` candidates; all are scored. `keys` are the attribute
    keys that an answer of the form `key=value` may use. `labelled` is the number of labelled
    products the index could draw on; 0 means a cold start.
    """

    neighbours: tuple[Neighbour, ...]
    candidates: tuple[Candidate, ...]
    offered: int = 24
    keys: tuple[str, ...] = ()
    labelled: int = 0

    @property
    def offer(self) -> tuple[Candidate, ...]:
        """The candidates that the model may choose from."""
        return self.candidates[: self.offered]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must look like: a JSON schema, and the most tokens it may take."""

    schema: Mapping[str, Any]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt: chat messages as (role, text), and which template made them."""

    messages: tuple[tuple[str, str], ...]
    template: str
    template_hash: str
    truncated: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the messages' SHA-256."""
        text = "\0".join(part for message in self.messages for part in message)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token's UTF-8 bytes and its natural-log probability before any grammar mask.

    Bytes, because a token may be a part of a character.
    """

    token: bytes
    logprob: float


_LEAST_LOGPROB = -100_000.0  # vLLM says -9999 for a token that cannot come
_ROUNDING = 1e-3  # above 0 that the logarithm of a probability near 1 may come to lie
_MOST_TOKENS = 1 << 40  # of one answer and its prompt


def _count(said: object) -> int:
    """A number of tokens; 0 where it cannot be one."""
    sound = isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= _MOST_TOKENS
    return int(said) if sound else 0  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer to one prompt. Times are seconds, counts are tokens.

    Servers may say anything, so here is the one place where their numbers are checked. A count
    that cannot be one is 0. With one log-probability that cannot be one, all are left out.
    """

    text: str
    finish_reason: str
    model: str
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not all(_LEAST_LOGPROB <= each.logprob <= _ROUNDING for each in self.logprobs):
            object.__setattr__(self, "logprobs", ())
        for name in ("prompt_tokens", "completion_tokens"):
            object.__setattr__(self, name, _count(getattr(self, name)))


class Verdict(StrEnum):
    """How well an answer could be read."""

    CLEAN = "clean"
    REPAIRED = "repaired"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A tag the model chose and the parser accepted.

    `logprob` is the mean over the tokens that spell it; None where the server gave none.
    `new` marks a free tag that the vocabulary does not know.
    """

    tag: Tag
    spans: tuple[Span, ...] = ()
    logprob: float | None = None
    new: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """Something the model said that is not kept, and why."""

    text: str
    reason: Reason


REMARKS = frozenset({"instruction_in_text", "text_repaired"})  # problems that cost no tags


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a product or its answer. The run goes on.

    Most codes say that there is no trustworthy answer; a remark leaves the tags as they are.
    """

    code: str
    message: str

    @property
    def is_remark(self) -> bool:
        """Whether the tags hold all the same."""
        return self.code in REMARKS


@dataclass(frozen=True, slots=True)
class ParsedTags:
    """A completion after reading: accepted proposals in the model's order, and the rest.

    `answered` says that there was a readable answer, be it an empty one.
    """

    accepted: tuple[Proposal, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    verdict: Verdict = Verdict.CLEAN
    problem: Problem | None = None
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a tag, in a form a person can check.

    `signals` are the scorer's inputs; `contributions` are what each adds to the score's log-odds,
    `bias` being where they start: their sum is the log-odds.
    """

    neighbours: tuple[tuple[str, float], ...] = ()
    spans: tuple[Span, ...] = ()
    chosen: bool = False
    logprob: float | None = None
    new: bool = False
    signals: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredTag:
    """A candidate with its probability of being right, 0..1, and the evidence for it."""

    tag: Tag
    score: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class ScoredTags:
    """Every candidate of one product, best first; `at` cuts without scoring again."""

    items: tuple[ScoredTag, ...] = ()

    def at(self, threshold: float) -> tuple[ScoredTag, ...]:
        """The known tags that score `threshold` or more; new ones always wait for a person."""
        return tuple(s for s in self.items if s.score >= threshold and not s.evidence.new)

    def below(self, threshold: float, floor: float) -> tuple[ScoredTag, ...]:
        """The plausible rest: scored from `floor` up to `threshold`, and whatever is new."""
        return tuple(s for s in self.items if s.evidence.new or floor <= s.score < threshold)


@dataclass(frozen=True, slots=True)
class TaggedProduct:
    """The pipeline's result for one product; `problem` says what is wrong, if anything is.

    `answered` says that the model gave a readable answer, `offered` are the names of the tags that
    it could choose from.
    """

    product: Product
    scored: ScoredTags = field(default_factory=ScoredTags)
    rejected: tuple[Rejection, ...] = ()
    problem: Problem | None = None
    truncated: tuple[str, ...] = ()
    completion: Completion | None = None
    answered: bool = False
    offered: tuple[str, ...] = ()
    prompt_hash: str = ""

    @property
    def failed(self) -> bool:
        """Whether there is no trustworthy answer."""
        return self.problem is not None and not self.problem.is_remark
