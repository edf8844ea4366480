"""The version of what is built, apart from what builds it: a plan needs only this."""

BUILDER_VERSION = 2
"""Goes up when the same shape and seed no longer give the same files, and is part of their folder's name. 1 had no
tokenizer."""
