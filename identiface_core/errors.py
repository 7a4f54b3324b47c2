"""Every error a user can cause, by name. Each message says what was wanted, what came, and what to do."""


class IdentiFaceError(Exception):
    """Base of all errors that IdentiFace raises on purpose; the command line prints its text without a trace."""


class InputError(IdentiFaceError):
    """A picture, a text or a setting given by the user cannot be used."""


class NoFaceError(InputError):
    """No face was found where one is needed."""


class SeveralFacesError(InputError):
    """More than one face was found and none was chosen."""


class WeightsError(IdentiFaceError):
    """A weight file is missing, damaged, or of another kind than asked for."""


class GalleryError(IdentiFaceError):
    """A gallery is empty, damaged, or was made with another matcher."""


class CaseError(IdentiFaceError):
    """A case file cannot be read, or does not fit the models at hand."""


class OutputError(IdentiFaceError):
    """A result could not be written; nothing half-written is left behind."""
