"""The projection of a matrix in words and numbers: headline, alternative texts, tables."""

import html

import numpy as np

__all__ = ["curve_columns", "errors_words", "factor_words", "headline", "spectra_columns", "spectra_words"]


def headline(scene) -> str:
    """Return the sentences above the view, as HTML."""
    m, n = scene.matrix.shape
    k, l = scene.blocks
    order = "permuted" if scene.permuted else "in their order"
    text = (
        f"<b>{html.escape(scene.title)}</b>, {m:,} x {n:,}, inputs {order}. Two factors with {k} and {l} blocks and "
        f"parts of rank {scene.rank} hold {scene.parameters:,} numbers, <b>{scene.share():.1%} of the dense matrix</b>, and take "
        f"{scene.multiply_adds:,} multiply-adds for each row of inputs. The nearest such matrix has a relative "
        f"error of <b>{scene.error:.3g}</b> ({scene.kind})."
    )
    small = f"<div class='wb wb-note' style='padding:0 4px'>{html.escape(scene.remark)}</div>" if scene.remark else ""
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>" + small


def spectra_words(scene, spectra, permuted: bool) -> str:
    """Return how flat the spectra of one order of the columns are."""
    kept = scene.kept(spectra)
    order = "permuted" if permuted else "in their order"
    return (
        f"{scene.title}, inputs {order}: {spectra.shape[0]} x {spectra.shape[1]} parts; the first "
        f"{scene.rank} of {spectra.shape[2]} singular values of a part hold from {kept.min(initial=1):.1%} to "
        f"{kept.max(initial=0):.1%} of its energy."
    )


def factor_words(scene, step: int) -> str:
    """Return what the first blocks of the first factor have filled in."""
    k, columns = scene.blocks[0], step * scene.columns_of_a_block
    if not step:
        return f"Nothing is multiplied yet: {k} blocks of the first factor read {scene.columns_of_a_block} inputs each."
    blocks = "1 block" if step == 1 else f"{step} blocks"
    return (
        f"{blocks} of {k} in the first factor: the first {columns} of {scene.matrix.shape[1]} columns of the product "
        "are there, and every row of them has entries."
    )


def errors_words(scene) -> str:
    """Return the errors of all structures."""
    told = "; ".join(f"{rival.name} {rival.error:.3g} with {rival.parameters:,} parameters" for rival in scene.rivals)
    return f"{scene.title}, relative errors: {told}."


def spectra_columns(scene) -> dict[str, np.ndarray]:
    """Return the table behind the spectra: a row for each part."""
    l, k, _ = scene.spectra.shape
    j, i = (part.reshape(-1) for part in np.indices((l, k)))
    return {
        "block that writes": j,
        "block that reads": i,
        "largest singular value": scene.spectra[..., 0].reshape(-1),
        "energy kept": scene.kept(scene.spectra).reshape(-1),
        "energy kept in the other order": scene.kept(scene.turned).reshape(-1),
    }


def curve_columns(scene) -> dict[str, np.ndarray]:
    """Return the table behind the errors: other structures first, then the curves."""
    rows = [(rival.name, rival.parameters / scene.matrix.size, rival.error) for rival in scene.rivals]
    rows += [
        (name, x, y) for name, (shares, errors) in scene.curves.items() for x, y in zip(shares, errors, strict=True)
    ]
    names, shares, errors = zip(*rows, strict=True)
    return {
        "structure": np.array(names),
        "share of the parameters": np.array(shares, float),
        "relative error": np.array(errors, float),
    }
