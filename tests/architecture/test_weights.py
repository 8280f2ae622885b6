"""What ships stays small: 2 MB of weights a paper, 32 MB in all, so that a clone and a class's download stay quick."""

import pytest

from tests.paper_times import paper_keys

MB = 1_000_000
BUDGET_OF_A_PAPER_MB, BUDGET_OF_ALL_MB = 2, 32
FOLDER = "workbench/models/weights"
# Files that no paper owns, and who uses them: they count in the total only.
SHARED = {
    "tiny_lm": "the language model in whose heads many papers' methods are looked at",
    "tokenizer": "its word pieces",
    "digit_vit": "the vision transformer of digits that methods of fine-tuning tune",
    "digit_diffusion": "the diffusion model of digits that methods of fine-tuning tune, and its judge",
    "small_encoder": "the sentence encoder where the pretrained one is not installed",
}
SUFFIXES = {".safetensors", ".pt", ".pth", ".npz", ".npy", ".bin", ".onnx"}


@pytest.fixture(scope="module")
def sizes_mb(root, files):
    """The size of every file in the folder of weights, by name."""
    sizes = {path.name: (root / path).stat().st_size / MB for path in files if path.parent.as_posix() == FOLDER}
    assert sizes
    return sizes


def _owner(name, keys):
    """Return the paper whose key is the file's name or the start of it: ``sea_minilm.safetensors`` is of ``sea``."""
    stem = name.partition(".")[0]
    return next((key for key in sorted(keys, key=len, reverse=True) if f"{stem}_".startswith(f"{key}_")), None)


def test_a_papers_weights_fit_its_budget(sizes_mb):
    keys = paper_keys()
    for key in keys:
        files = {name: mb for name, mb in sizes_mb.items() if _owner(name, keys) == key}
        total = sum(files.values())
        assert total <= BUDGET_OF_A_PAPER_MB, (
            f"{key} ships {total:.2f} MB of weights ({', '.join(files)}); a paper has {BUDGET_OF_A_PAPER_MB} MB"
        )


def test_all_weights_fit_their_budget(sizes_mb):
    total = sum(sizes_mb.values())
    assert total <= BUDGET_OF_ALL_MB, f"{FOLDER} holds {total:.1f} MB; all weights have {BUDGET_OF_ALL_MB} MB"


def test_every_file_belongs_to_a_paper_or_is_shared(sizes_mb):
    for name in sizes_mb:
        known = _owner(name, paper_keys()) or name.partition(".")[0] in SHARED
        assert known, f"{FOLDER}/{name}: begin its name with its paper's key, or list it as shared and say who uses it"


def test_weights_lie_nowhere_else(files):
    for path in files:
        assert path.suffix not in SUFFIXES or path.parent.as_posix() == FOLDER, f"{path}: weights lie in {FOLDER}"


@pytest.mark.parametrize(
    ("name", "owner"),
    [("sea.safetensors", "sea"), ("sea_mini.json", "sea"), ("sea_ice_2.md", "sea_ice"), ("search.npz", None)],
)
def test_a_files_name_says_whose_it_is(name, owner):
    assert _owner(name, ["sea", "sea_ice"]) == owner
