"""Errors that stop a command, each with what to do next.

    LlmtaggerError
    ├── ConfigError          settings, options or a template are wrong
    │   ├── PromptError      a template is missing, invalid, or uses an unknown variable
    │   └── Unpromised       a precision is asked for that nothing was measured for
    ├── CatalogError         an input file cannot be read as a catalogue
    ├── VocabularyError      a vocabulary contradicts itself
    ├── IndexFolderError          an index folder cannot be used
    │   ├── IndexMissing     it is not there, or is no index folder
    │   ├── IndexDamaged     a checksum or shape does not agree
    │   └── IndexMismatch    it was made by another encoder or version
    ├── EncoderError         an encoder is not installed or cannot be loaded
    ├── LeakFound            test products resemble those that were learnt from
    ├── TuningError          a model cannot be tuned, or an adapter not be used
    ├── GoldError            a gold book, or a file of gold, cannot be used
    ├── RunError             a journal belongs to another run, or another process has it
    └── EngineError          the language model's server
        ├── ModelMissing     no such model here
        ├── EngineStartError it did not come up
        ├── EngineCancelled  somebody gave up waiting for it to start
        ├── EngineUnreachable it does not answer            (retryable)
        ├── EngineUntrusted  it ignores the grammar
        ├── RequestRefused   it answers one request with a refusal (too long, …)
        └── RequestFailed    it answers others, but never this one

A bad row or a bad answer is never an exception: see `datatypes.Problem` and `catalog.RejectedRow`.
"""

from __future__ import annotations


class LlmtaggerError(Exception):
    """Base of all errors here: `hint` is the remedy, `retryable` whether a second try helps."""

    retryable = False

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(LlmtaggerError):
    """Settings or options that cannot be used together, or at all."""


class PromptError(ConfigError):
    """A prompt template that is missing or does not render."""


class Unpromised(ConfigError):
    """A precision that cannot be promised, because nothing was measured."""


class CatalogError(LlmtaggerError):
    """A catalogue file that cannot be read at all."""


class VocabularyError(LlmtaggerError):
    """A vocabulary that contradicts itself."""


class IndexFolderError(LlmtaggerError):
    """An index folder that cannot be used."""


class IndexMissing(IndexFolderError):
    """No index folder at that path."""


class IndexDamaged(IndexFolderError):
    """A file of the index folder is missing or altered."""


class IndexMismatch(IndexFolderError):
    """The index folder was made with something else than what is asked for."""


class EncoderError(LlmtaggerError):
    """An encoder that is not installed or cannot be loaded."""


class LeakFound(LlmtaggerError):
    """Products to test on resemble products that were learnt from."""


class TuningError(LlmtaggerError):
    """A model that cannot be tuned, or an adapter that does not fit."""


class GoldError(LlmtaggerError):
    """A gold book, or a file of gold, that cannot be used."""


class RunError(LlmtaggerError):
    """A run that cannot be resumed."""


class EngineError(LlmtaggerError):
    """The language model's server cannot be used."""


class ModelMissing(EngineError):
    """The model is not where it was said to be."""


class EngineStartError(EngineError):
    """The server that we started did not come up."""


class EngineCancelled(EngineError):
    """Its start was cancelled; nothing is broken."""


class EngineUnreachable(EngineError):
    """The server does not answer."""

    retryable = True


class EngineUntrusted(EngineError):
    """The server answers but ignores the grammar."""


class RequestRefused(EngineError):
    """The server refuses one request, for instance a prompt that is too long for the model."""


class RequestFailed(EngineError):
    """The server answers other requests, but fails at this one again and again."""
