"""What a layer's training must hold, by formula: all weights, some of them, thin factors, or SaRA's vector."""

from kernels.check import as_int, check_choice

__all__ = ["METHODS", "STORED_PLACES", "memory_report"]

STORED_PLACES = {"int32": 4, "int64": 8, "mask": 0}  # bytes for each trained entry; a mask has one for every entry
METHODS = ("full", "selective", "lora", "sara")


def memory_report(m, n, k, *, method="sara", rank=8, tokens=0, itemsize=4, storage="int32") -> dict[str, int]:
    """Count the bytes that training a weight (m, n) with AdamW holds.

    Parameters
    ----------
    m, n : outputs and inputs.
    k : trained entries, from 0 to m n; only "sara" stores anything by it.
    method : "full"; "selective", where all gradients are kept and masked; "lora"; or "sara".
    rank : of "lora".
    tokens : inputs of a step, for what the forward pass saves.
    itemsize : bytes of a number.
    storage : of the places of "sara": "int32", "int64" or "mask". Places of 4 bytes take less than a mask below a
        quarter of the entries, those of 8 below an eighth.

    Returns
    -------
    name -> bytes: weights, gradients, optimizer, indices, saved, transient. The last is the dense gradient of this
    layer, which "sara" holds until it has gathered its part; a model's layers hold it one after the other.

    Raises
    ------
    TypeError, ValueError : an argument of the wrong kind, or out of range.

    Source
    ------
    Counted by hand for the methods of Hu et al. 2024, "SaRA", which calls the mask negligible.
    """
    name = "memory_report"
    m, n, rank = (as_int(x, function=name, name=what, low=1) for x, what in ((m, "m"), (n, "n"), (rank, "rank")))
    k = as_int(k, function=name, name="k", low=0, high=m * n)
    tokens, b = as_int(tokens, function=name, name="tokens", low=0), as_int(itemsize, function=name, name="itemsize")
    check_choice(method, METHODS, function=name, name="method")
    check_choice(storage, STORED_PLACES, function=name, name="storage")
    places = m * n if storage == "mask" else STORED_PLACES[storage] * k
    extra, trained, indices, inner, dense = {
        "full": (0, m * n, 0, 0, 0),
        "selective": (0, m * n, m * n, 0, 0),
        "lora": (rank * (m + n), rank * (m + n), 0, rank, 0),
        "sara": (k, k, places, 0, m * n),
    }[method]
    return {
        "weights": b * (m * n + extra),
        "gradients": b * trained,
        "optimizer": 2 * b * trained,
        "indices": indices,
        "saved": b * tokens * (n + inner),
        "transient": b * dense,
    }
