"""The one kind of error that a user can mend."""


class InputError(ValueError):
    """Something given from outside cannot be used: one sentence that names it and the remedy.

    The command line prints the sentence and ends with exit code 2; nothing else does.
    """
