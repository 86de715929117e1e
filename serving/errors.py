"""What can go wrong between us and a model."""


class ServingError(Exception):
    """A model cannot be served or reached at all: wrong address, missing weights, a server that dies. Stops the run."""


class WrongModel(ServingError):
    """A recipe's model cannot be what it says: no such weights, no such address, a refused key. Nothing was spent."""


class RequestFailed(Exception):
    """One request got no answer. The record it was for is dropped with `reason`; the others go on.

    `reason`: `rejected_request` (the server will never take it), `not_imported` (there is no server), `too_long` (for
    the model's context), `quarantined` (a managed server died of it, twice), `budget` (it could cost more than is left)
    or `transport_error` (all tries used). Of the last two the next run asks again.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
