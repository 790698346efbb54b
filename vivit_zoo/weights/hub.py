"""Whether the Hugging Face hub can be reached, asked once and without waiting."""

__all__ = ["hub_error"]

TIMEOUT = 10.0  # seconds


def hub_error() -> Exception | None:
    """The error of a first request to the hub, or None.

    huggingface_hub repeats a request that finds no network six times, which takes half a minute.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception as error:  # of requests or of httpx, which depends on the version of huggingface_hub
        return error
    return None
