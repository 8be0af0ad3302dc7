"""The errors a user can mend: each message names the thing and the remedy."""


class UserError(Exception):
    """Something the user gave is wrong; the command prints it without a traceback and exits 1."""


class SurveyError(UserError):
    """A survey, its source, or one of its files is missing, malformed or unfit for the run."""


class SettingsError(UserError):
    """A run setting is unknown, of the wrong type, out of range, or at odds with another."""


class FederationError(UserError):
    """The federation cannot start or go on: roster mismatch, lost quorum, diverged weights."""
