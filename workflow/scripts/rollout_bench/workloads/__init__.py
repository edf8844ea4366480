"""The load: which token ids are sent, how often, in which order."""
